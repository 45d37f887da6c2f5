import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { batchOf, padRows, type Row, uploadBatch } from './batch.ts'
import { lossesOf } from './picked.ts'

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
  const trials = items.flatMap(trialsOf)
  const likelihood = items.map((item) => new Float64Array(item.rows.length))
  let [nats, scored] = [0, 0]
  for (let begin = 0; begin < trials.length; begin += size) {
    if (options.signal?.aborted) throw new InterruptedError(`Stopped ${task} at row ${begin} of ${trials.length}`)
    const part = trials.slice(begin, begin + size)
    const batch = batchOf(padRows(part.map(({ row }) => row)))
    const looks = part.flatMap(({ looks }, r) =>
      looks.map((look) => ({ ...look, place: r * batch.tokens + look.place })),
    )
    using step = options.gpu.step({ label: task })
    const { ids } = uploadBatch(step, batch)
    const losses = step.withoutGradients(() =>
      lossesOf(step, model, model.hidden(step, ids, { ...(updates && { updates }) }), looks),
    )
    const found = await step.read(losses)
    for (const [at, { item, choice }] of looks.entries()) {
      likelihood[item][choice] -= found[at]
      if (choice === items[item].answer) {
        nats += found[at]
        scored++
      }
    }
    options.onProgress({ task, done: Math.min(trials.length, begin + size), total: trials.length, unit: 'rows' })
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

/** A token whose likelihood is wanted: where it is foretold in its row, and whose it is. */
interface Look {
  readonly place: number
  readonly target: number
  readonly item: number
  readonly choice: number
}

/** The rows of an item. Answers of one token share the row of their question. */
function trialsOf(item: ChoiceItem, index: number): { row: Row; looks: Look[] }[] {
  const looksOf = ({ ids, weights }: Row, choice: number): Look[] =>
    Array.from(weights).flatMap((weight, place) =>
      weight === 0 ? [] : [{ place, target: ids[place + 1], item: index, choice }],
    )
  const looks = item.rows.map(looksOf)
  const questions = new Set(item.rows.map(({ ids }) => Array.from(ids).slice(0, -1).join()))
  if (questions.size === 1 && looks.every((own) => own.length === 1))
    return [{ row: item.rows[0], looks: looks.flat() }]
  return item.rows.map((row, choice) => ({ row, looks: looks[choice] }))
}

/** Share of ones, and its standard error as lm-evaluation-harness gives it: that of a mean, from the sample deviation. */
export function shareOf(correct: ArrayLike<number>): { score: number; stderr: number } {
  const n = correct.length
  let right = 0
  for (let i = 0; i < n; i++) right += correct[i]
  const score = right / n
  return { score, stderr: n > 1 ? Math.sqrt((score * (1 - score)) / (n - 1)) : 0 }
}
