import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { copy } from './copy.ts'
import { restrictTokens } from './token-mask.ts'
import { sampler as wgsl } from './wgsl.gen.ts'

/** How the next token of a row is chosen. */
export interface Sampling {
  /** 0 takes the likeliest token; 0 unless told. */
  readonly temperature?: number
  /** Only the `topK` likeliest tokens; 0, which keeps all, unless told. */
  readonly topK?: number
  /** Only the likeliest tokens that together have this share of the probability; 1 unless told. */
  readonly topP?: number
  /** Only tokens with this share of the likeliest one's probability; 0 unless told. */
  readonly minP?: number
  /** Divides the positive logits of tokens that were there before, and multiplies the negative ones; 1 unless told. */
  readonly repetitionPenalty?: number
}

/** Numbers of a row of settings. */
export const settingsWidth = 5

/**
 * A row of settings for {@link chooseTokens}.
 * @throws RangeError naming the number that is out of range.
 */
export function samplingSettings(sampling: Sampling): number[] {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = sampling
  const check = (name: string, value: number, fits: boolean, range: string) => {
    if (!fits) throw new RangeError(`Cannot sample with ${name} ${value}: it must be ${range}`)
  }
  check('temperature', temperature, temperature >= 0 && temperature < 1e4, 'from 0 to 10,000')
  check('topK', topK, Number.isInteger(topK) && topK >= 0, 'a whole number, 0 or larger')
  check('topP', topP, topP > 0 && topP <= 1, 'above 0 and at most 1')
  check('minP', minP, minP >= 0 && minP <= 1, 'from 0 to 1')
  check('repetitionPenalty', repetitionPenalty, repetitionPenalty > 0 && repetitionPenalty < 1e4, 'above 0')
  return [temperature, topK, topP, minP, repetitionPenalty]
}

/** State of rows of tokens that are being made, on the GPU: a recorded step reads and advances it at every replay. */
export interface TokenState {
  /** u32 (B, 1): the token that each row reads next. */
  readonly ids: Tensor<'u32'>
  /** u32 (B): where that token stands. */
  readonly position: Tensor<'u32'>
  /** u32 (B, S): tokens so far, that one included. */
  readonly history: Tensor<'u32'>
  /** f32 (B, 5): see {@link samplingSettings}. */
  readonly settings: Tensor<'f32'>
  /** u32 (B): seeds of the draws. */
  readonly seeds: Tensor<'u32'>
}

/**
 * Chooses the next token of each row. top k, top p and min p are each taken on the whole distribution at the row's
 * temperature, and a token must pass all three; ties at the edge all pass. A draw depends on seed and position alone.
 * @param logits f32 or f16 (B, V).
 * @param options.penalize whether any row has a repetition penalty.
 * @param options.mask the tokens that each row may have, as {@link restrictTokens} takes them; all unless told.
 * @returns `chosen` u32 (B) and `logprob` f32 (B), its log-probability at temperature 1 among the tokens that it may have,
 *   after the penalty. No gradient.
 * @throws RangeError when the shapes do not fit.
 * @see Holtzman et al., The Curious Case of Neural Text Degeneration, 2019; Keskar et al., CTRL, 2019, section 4.1.
 */
export function chooseTokens(
  step: Step,
  logits: Tensor<FloatType>,
  state: TokenState,
  { penalize = false, mask }: { penalize?: boolean; mask?: Tensor<'u32'> } = {},
): { chosen: Tensor<'u32'>; logprob: Tensor<'f32'> } {
  const { rows, columns } = rowsAndColumns(logits.shape)
  const { history, settings, seeds, position } = state
  const capacity = history.shape[1]
  expectShape('chooseTokens', logits, 'settings', settings, [rows, settingsWidth])
  expectShape('chooseTokens', logits, 'seeds', seeds, [rows])
  expectShape('chooseTokens', logits, 'position', position, [rows])
  expectShape('chooseTokens', logits, 'history', history, [rows, capacity])
  const params = { rows, columns, capacity }
  let scores = logits
  if (penalize) {
    scores = step.empty(logits.dtype, logits.shape, 'penalized')
    copy(step, logits, scores)
    const workgroups = [Math.ceil(capacity / 64), rows]
    const operands = { logits, settings, history, position, penalized: scores }
    step.run(wgsl.penalize, operands, params, { workgroups, flops: rows * capacity, bytes: 8 * rows * capacity })
  }
  if (mask) scores = restrictTokens(step, scores, mask)
  const chosen = step.empty('u32', [rows], 'chosen')
  const logprob = step.empty('f32', [rows], 'logprob')
  const operands = { logits: scores, settings, seeds, position, chosen, logprob }
  step.run(wgsl.choose, operands, params, { workgroups: [rows], flops: 8 * logits.size })
  return { chosen, logprob }
}

/**
 * Makes the chosen tokens the next ones of their rows, in place: ids, position and history.
 * @param chosen u32 (B).
 */
export function advanceTokens(step: Step, state: TokenState, chosen: Tensor<'u32'>): void {
  const { ids, position: places, history: past } = state
  const rows = chosen.size
  const params = { rows, columns: 0, capacity: past.shape[1] }
  step.run(wgsl.advance, { next: chosen, ids, places, past }, params, {
    workgroups: grid(Math.ceil(rows / 64)),
    flops: 0,
    bytes: 20 * rows,
  })
}
