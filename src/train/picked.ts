import type { FloatType } from '../core/dtype.ts'
import { embedding } from '../kernels/embedding.ts'
import { headCrossEntropy } from '../kernels/head-loss.ts'
import { headTopK } from '../kernels/head-select.ts'
import type { Decoder } from '../models/decoder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { Batch } from './batch.ts'

// The head of a language model is a good part of its work, and most tokens of a question are not scored: only the rows of
// those that are go through it.

/** Counts are rounded up to it, so that few shapes are made. */
const unit = 32

/** Places of a batch that are scored. */
export interface Places {
  /** In the batch, by row and token. */
  readonly positions: readonly number[]
  /** u32 (n), n a multiple of 32: what lies behind the positions repeats the first. */
  readonly padded: Uint32Array<ArrayBuffer>
}

/** Rows of the states of a batch that are scored, and what belongs to them. */
export interface Picked extends Places {
  /** (n, C) */
  readonly states: Tensor<FloatType>
}

/**
 * The places of the tokens whose weight is not 0.
 * @throws RangeError when there is none.
 */
export function scoredPlaces(weights: ArrayLike<number>): Places {
  const positions = Array.from({ length: weights.length }, (_, i) => i).filter((i) => weights[i] !== 0)
  if (positions.length === 0) throw new RangeError('Cannot score a batch: no token has a weight')
  return padPlaces(positions)
}

function padPlaces(positions: readonly number[]): Places {
  const size = Math.ceil(positions.length / unit) * unit
  return { positions, padded: Uint32Array.from({ length: size }, (_, i) => positions[i] ?? positions[0]) }
}

/**
 * The states at some places.
 * @param hidden (B, T, C)
 * @param places u32 (n)
 * @returns (n, C); `hidden` gets their gradients.
 */
export function statesAt(step: Step, hidden: Tensor<FloatType>, places: Tensor<'u32'>): Tensor<FloatType> {
  const columns = hidden.shape.at(-1)!
  return embedding(step, step.reshape(hidden, [hidden.size / columns, columns]), places)
}

/**
 * The states of the tokens whose weight is not 0.
 * @param hidden (B, T, C)
 * @returns none of padding; states get the gradients of `hidden`.
 * @throws RangeError when no token has a weight.
 */
export function pickScored(step: Step, hidden: Tensor<FloatType>, weights: ArrayLike<number>): Picked {
  return pick(step, hidden, scoredPlaces(weights))
}

function pick(step: Step, hidden: Tensor<FloatType>, places: Places): Picked {
  const { padded } = places
  return { ...places, states: statesAt(step, hidden, step.upload('u32', [padded.length], padded, 'places')) }
}

/**
 * Cross entropy of tokens at some places in nats; a place may be looked at more than once.
 * @returns f32 (n), of which the first `looks.length` count.
 */
export function lossesOf(
  step: Step,
  model: Decoder,
  hidden: Tensor<FloatType>,
  looks: readonly { readonly place: number; readonly target: number }[],
): Tensor<'f32'> {
  const { states } = pick(step, hidden, padPlaces(looks.map(({ place }) => place)))
  const targets = Uint32Array.from({ length: states.shape[0] }, (_, i) => looks[i]?.target ?? 0)
  const wanted = step.upload('u32', [targets.length], targets, 'targets')
  return headCrossEntropy(step, model.normed(step, states), model.headWeight, wanted)
}

/** Values of a batch at picked places, the rest filled with `filler`. */
export function valuesAt(
  { positions, padded }: Places,
  values: ArrayLike<number>,
  width = 1,
  filler?: number,
): Float64Array {
  const size = padded.length
  const out = new Float64Array(size * width)
  for (let i = 0; i < size; i++)
    for (let j = 0; j < width; j++)
      out[i * width + j] = i >= positions.length && filler !== undefined ? filler : values[padded[i] * width + j]
  return out
}

/** Cross entropy of the scored tokens of a batch in nats, f32 (n); the first `positions.length` count. */
export function lossesAt(
  step: Step,
  model: Decoder,
  hidden: Tensor<FloatType>,
  { weights, targets }: Pick<Batch, 'weights' | 'targets'>,
): Picked & { readonly normed: Tensor<FloatType>; readonly losses: Tensor<'f32'> } {
  const picked = pickScored(step, hidden, weights)
  const normed = model.normed(step, picked.states)
  const wanted = step.upload('u32', [picked.states.shape[0]], valuesAt(picked, targets), 'targets')
  return { ...picked, normed, losses: headCrossEntropy(step, normed, model.headWeight, wanted) }
}

/** The likeliest next token of each picked place, u32 (n, 1). */
export function likeliest(step: Step, model: Decoder, normed: Tensor<FloatType>): Tensor<'u32'> {
  return headTopK(step, normed, model.headWeight, 1).ids
}
