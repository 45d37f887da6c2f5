import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { batchOf, padRows, type Row, uploadBatch } from './batch.ts'
import { likeliest, lossesAt } from './picked.ts'

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
  readonly model: Decoder
  readonly updates?: LinearUpdates
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
  const { items, unit, batch: size = 120, task, model, updates } = options
  const correct: number[] = []
  let total = 0
  let scored = 0
  for (let begin = 0; begin < items.length; begin += size) {
    if (options.signal?.aborted) throw new InterruptedError(`Stopped ${task} at item ${begin} of ${items.length}`)
    const part = items.slice(begin, begin + size)
    const batch = batchOf(padRows(part))
    using step = options.gpu.step({ label: task })
    const tensors = uploadBatch(step, batch)
    const { positions, normed, losses } = step.withoutGradients(() =>
      lossesAt(step, model, model.hidden(step, tensors.ids, { ...(updates && { updates }) }), batch),
    )
    const [best, nats] = await Promise.all([step.read(likeliest(step, model, normed)), step.read(losses)])
    const places = new Map(positions.map((position, i) => [position, i]))
    for (let r = 0; r < batch.rows; r++) {
      let right = 1
      for (let i = r * batch.tokens; i < (r + 1) * batch.tokens; i++) {
        const place = places.get(i)
        if (place === undefined) continue
        const hit = best[place] === batch.targets[i] ? 1 : 0
        total += nats[place]
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
    bitsPerToken: total / scored / Math.LN2,
  }
}
