import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Capability } from '../train/capability.ts'
import { evaluate } from '../train/evaluate.ts'
import { scoreChoices, shareOf } from '../train/score-choices.ts'
import type { NiwtRun } from './run.ts'

/** What a model got on a capability's held-out items. */
export interface Measured {
  /** The metric that decides. */
  readonly metric: string
  /** A digit for each unit, 1 where the metric says that it was right. */
  readonly correct: string
  /** Share of units that were right, and its standard error. */
  readonly score: number
  readonly stderr: number
  /** Cross entropy of the right answers in bits a token. */
  readonly bitsPerToken: number
  /** All metrics that the items allow, each with its standard error. */
  readonly scores: Readonly<Record<string, { readonly score: number; readonly stderr: number }>>
}

/** Scores a model on the held-out items of a capability: by its choices where the items have some, else by what it writes. */
export async function measure(
  run: Pick<NiwtRun, 'gpu' | 'onProgress' | 'signal' | 'settings'>,
  model: Decoder,
  capability: Capability,
  task: string,
  updates?: LinearUpdates,
): Promise<Measured> {
  const { gpu, onProgress, signal } = run
  const work = { gpu, model, task, onProgress, ...(updates && { updates }), ...(signal && { signal }) }
  const batch = run.settings.evaluation?.batch
  const rows = batch === undefined ? {} : { batch }
  const { metric } = capability
  const choices = capability.choices?.()
  if (!choices) {
    const { correct, score, bitsPerToken } = await evaluate({
      ...{ ...work, ...rows, items: capability.items(), unit: capability.unit },
    })
    const own = shareOf(correct)
    return { metric, correct: correct.join(''), score, stderr: own.stderr, bitsPerToken, scores: { [metric]: own } }
  }
  const { acc, accNorm, bitsPerToken } = await scoreChoices({ ...work, ...rows, items: choices })
  const decisive = metric === 'acc_norm' ? accNorm : acc
  const own = shareOf(decisive)
  const scores = { acc: shareOf(acc), acc_norm: shareOf(accNorm) }
  return { metric, correct: decisive.join(''), ...own, bitsPerToken, scores }
}
