import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { batchOf, padRows, type Row, uploadBatch } from './batch.ts'
import { lossesAt } from './picked.ts'

/** A question with several answers to choose from. */
export interface ChoiceItem {
  /** The question with each answer behind it; weights are 1 on the tokens of the answer. */
  readonly rows: readonly Row[]
  /** Characters of each answer. */
  readonly characters: readonly number[]
  /** Which of them is right. */
  readonly answer: number
}

/** Result of {@link scoreChoices}. */
export interface ChoiceScores {
  /** 1 for each item whose right answer is the likeliest. */
  readonly acc: Uint8Array<ArrayBuffer>
  /** 1 for each item whose right answer is the likeliest a character. */
  readonly accNorm: Uint8Array<ArrayBuffer>
  /** Mean cross entropy of the right answers in bits a token. */
  readonly bitsPerToken: number
}

/** What {@link scoreChoices} needs. */
export interface ChoiceOptions {
  readonly gpu: Gpu
  readonly model: Decoder
  readonly updates?: LinearUpdates
  readonly items: readonly ChoiceItem[]
  /** Rows a batch; 120 unless told. */
  readonly batch?: number
  readonly task: string
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/**
 * Scores a model by which answer it finds likeliest, as lm-evaluation-harness does: `acc` by the log-likelihood of each
 * answer, `acc_norm` by that over the answer's characters. Of equal ones the first counts.
 * @see EleutherAI lm-evaluation-harness 0.4, api/task.py, `process_results` of multiple_choice.
 */
export async function scoreChoices(options: ChoiceOptions): Promise<ChoiceScores> {
  const { items, batch: size = 120, task, model, updates } = options
  const rows = items.flatMap((item, i) => item.rows.map((row, choice) => ({ row, i, choice })))
  const likelihood = items.map((item) => new Float64Array(item.rows.length))
  let [nats, scored] = [0, 0]
  for (let begin = 0; begin < rows.length; begin += size) {
    if (options.signal?.aborted) throw new InterruptedError(`Stopped ${task} at answer ${begin} of ${rows.length}`)
    const part = rows.slice(begin, begin + size)
    const batch = batchOf(padRows(part.map(({ row }) => row)))
    using step = options.gpu.step({ label: task })
    const tensors = uploadBatch(step, batch)
    const hidden = step.withoutGradients(() => model.hidden(step, tensors.ids, { ...(updates && { updates }) }))
    const { positions, losses } = lossesAt(step, model, hidden, batch)
    for (const [at, loss] of (await step.read(losses)).entries()) {
      if (at >= positions.length) break
      const { i, choice } = part[Math.floor(positions[at] / batch.tokens)]
      likelihood[i][choice] -= loss
      if (choice === items[i].answer) {
        nats += loss
        scored++
      }
    }
    options.onProgress({ task, done: Math.min(rows.length, begin + size), total: rows.length, unit: 'answers' })
  }
  const right = (of: (i: number, choice: number) => number) =>
    Uint8Array.from(items, (item, i) => {
      const values = item.rows.map((_, choice) => of(i, choice))
      return values.indexOf(Math.max(...values)) === item.answer ? 1 : 0
    })
  return {
    acc: right((i, choice) => likelihood[i][choice]),
    accNorm: right((i, choice) => likelihood[i][choice] / items[i].characters[choice]),
    bitsPerToken: nats / scored / Math.LN2,
  }
}

/** Share of ones, and its standard error as lm-evaluation-harness gives it: that of a mean, from the sample deviation. */
export function shareOf(correct: ArrayLike<number>): { score: number; stderr: number } {
  const n = correct.length
  let right = 0
  for (let i = 0; i < n; i++) right += correct[i]
  const score = right / n
  return { score, stderr: n > 1 ? Math.sqrt((score * (1 - score)) / (n - 1)) : 0 }
}
