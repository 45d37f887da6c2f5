import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { matmul } from './matmul.ts'
import { mergeChunks, segmentSums, splitChunks, stepSizes } from './ssd-chunks.ts'
import { decayMask } from './ssd-mask.ts'
import { carryStates, decayRows } from './ssd-states.ts'

/** What {@link ssd} needs beside its sequences. */
export interface SsdOptions<D extends FloatType> {
  /** D of the paper, the dtype of `x`, (H): what of x goes past the states; none unless told. */
  readonly skip?: Tensor<D>
  /** Added to `dt`, the dtype of `x`, (H); none unless told. */
  readonly dtBias?: Tensor<D>
  /** Whether the step size is softplus(dt + bias) instead of dt + bias; false unless told. */
  readonly softplus?: boolean
  /**
   * f32 (B, H, P, N): the state before the first token, overwritten with the state after the last. Zero at the start and
   * not kept unless told. It is a constant for the gradients.
   */
  readonly state?: Tensor<'f32'>
}

const largestChunk = 64

/**
 * State-space duality: h_t = exp(a d_t) h_{t−1} + d_t x_t B_tᵀ, a matrix (P, N) a head, and y_t = h_t C_t + D x_t, with
 * d = dt + bias or softplus of it. Inside a chunk of 64 tokens it is masked attention, between chunks a recurrence, and
 * both are matrix products; all between `x` and the result is f32 whatever the storage.
 * @param x f32 or f16 (B, T, H, P).
 * @param dt the dtype of `x`, (B, T, H): step sizes, positive after the softplus.
 * @param a A of the paper, the dtype of `x`, (H), negative.
 * @param b the dtype of `x`, (B, T, G, N), H a multiple of G: H/G heads share one.
 * @param c the dtype and shape of `b`.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when the shapes do not fit.
 * @see Dao and Gu, Transformers are SSMs, 2024, section 6.
 */
export function ssd<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  dt: Tensor<D>,
  a: Tensor<D>,
  b: Tensor<D>,
  c: Tensor<D>,
  { skip, dtBias, softplus = false, state }: SsdOptions<D> = {},
): Tensor<D> {
  expectRank('ssd', x, 'B, T, H, P', 4)
  expectRank('ssd', b, 'B, T, G, N', 4)
  const [batch, tokens, heads, width] = x.shape
  const [, , groups, n] = b.shape
  expectShape('ssd', x, 'dt', dt, [batch, tokens, heads])
  expectShape('ssd', x, 'a', a, [heads])
  expectShape('ssd', x, 'b', b, [batch, tokens, groups, n])
  expectShape('ssd', x, 'c', c, b.shape)
  if (heads % groups !== 0)
    throw new RangeError(`Cannot ssd x ${showShape(x.shape)}: ${heads} heads cannot share ${groups} groups of b and c`)
  if (skip) expectShape('ssd', x, 'skip', skip, [heads])
  if (dtBias) expectShape('ssd', x, 'dtBias', dtBias, [heads])
  if (state) expectShape('ssd', x, 'state', state, [batch, heads, width, n])

  // A multiple of four, for the tiled matrix products.
  const size = Math.min(largestChunk, 4 * Math.ceil(tokens / 4))
  const cut = { tokens, size, chunks: Math.ceil(tokens / size) }
  const d = stepSizes(step, dt, { bias: dtBias, softplus }, cut)
  const prefix = segmentSums(step, d, a, 'prefix')
  const [values, inputs, outputs] = [splitChunks(step, x, cut), splitChunks(step, b, cut), splitChunks(step, c, cut)]

  const scores = matmul(step, outputs, inputs, { transposeB: true })
  const within = matmul(step, decayMask(step, scores, d, prefix, a, skip), values)
  if (cut.chunks === 1 && !state) return mergeChunks(step, within, x.dtype, cut)

  const toEnd = decayRows(step, inputs, segmentSums(step, d, a, 'suffix'), d)
  const own = matmul(step, values, toEnd, { transposeA: true })
  const before = carryStates(step, own, prefix, state)
  const across = matmul(step, decayRows(step, outputs, prefix), before, { transposeB: true })
  return mergeChunks(step, add(step, within, across), x.dtype, cut)
}
