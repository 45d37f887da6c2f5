import type { FloatType } from '../core/dtype.ts'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { crossEntropy } from '../kernels/losses.ts'
import { argmax } from '../kernels/select.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { batchOf, padRows, type Row, uploadBatch } from './batch.ts'

/** What counts as one answer: an item whose every scored token is right, or each scored token by itself. */
export type Unit = 'item' | 'token'

/** Result of {@link evaluate}. */
export interface Evaluation {
  /** 1 for each unit that was right, 0 for each that was wrong, in the order of the items. */
  readonly correct: Uint8Array<ArrayBuffer>
  /** Share of units that were right. */
  readonly score: number
  /** Mean cross entropy of the scored tokens in bits a token. */
  readonly bitsPerToken: number
}

/** What {@link evaluate} needs. */
export interface EvaluateOptions {
  readonly gpu: Gpu
  /** Records a forward pass. @returns logits (B, T, V). */
  forward(step: Step, ids: Tensor<'u32'>): Tensor<FloatType>
  /** Items of any length; a token is scored where its weight is not 0. */
  readonly items: readonly Row[]
  readonly unit: Unit
  /** Items a batch; 120 unless told. */
  readonly batch?: number
  readonly task: string
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/**
 * Scores a model by its likeliest next token at every scored position, given the true tokens before it. An item all of
 * whose tokens are right is just what greedy decoding would have written.
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { items, unit, batch: size = 120, task } = options
  const correct: number[] = []
  let nats = 0
  let scored = 0
  for (let begin = 0; begin < items.length; begin += size) {
    if (options.signal?.aborted) throw new InterruptedError(`Stopped ${task} at item ${begin} of ${items.length}`)
    const part = items.slice(begin, begin + size)
    const batch = batchOf(padRows(part))
    using step = options.gpu.step({ label: task })
    const tensors = uploadBatch(step, batch)
    const logits = options.forward(step, tensors.ids)
    const [best, losses] = await Promise.all([
      step.read(argmax(step, logits)),
      step.read(crossEntropy(step, logits, tensors.targets)),
    ])
    for (let r = 0; r < batch.rows; r++) {
      let right = 1
      for (let i = r * batch.tokens; i < (r + 1) * batch.tokens; i++) {
        if (batch.weights[i] === 0) continue
        const hit = best[i] === batch.targets[i] ? 1 : 0
        nats += losses[i]
        scored++
        right &= hit
        if (unit === 'token') correct.push(hit)
      }
      if (unit === 'item') correct.push(right)
    }
    options.onProgress({ task, done: Math.min(items.length, begin + size), total: items.length, unit: 'items' })
  }
  return {
    correct: Uint8Array.from(correct),
    score: correct.reduce((sum, hit) => sum + hit, 0) / correct.length,
    bitsPerToken: nats / scored / Math.LN2,
  }
}
