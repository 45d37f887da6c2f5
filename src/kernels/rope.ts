import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { rope as wgsl } from './wgsl.gen.ts'

/**
 * Rotary position embedding: turns pair (i, i + D/2) of every head by position · theta^(−2i/D).
 * @param x f32 or f16 (B, T, H, D), D even.
 * @param options.theta base of the frequencies, 10,000 unless told.
 * @param options.offset position of the first token, 0 unless told.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when `x` is not (B, T, H, D) or D is odd.
 * @see Su et al., RoFormer, 2021, section 3.2; in the half-rotation form of Hugging Face's Llama.
 */
export function rope<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  { theta = 10_000, offset = 0 }: { theta?: number; offset?: number } = {},
): Tensor<D> {
  expectRank('rope', x, 'B, T, H, D', 4)
  if (x.shape[3] % 2 !== 0) throw new RangeError(`Cannot rope x ${showShape(x.shape)}: the head size must be even`)
  return turn(step, x, theta, offset, 1)
}

function turn<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  theta: number,
  offset: number,
  direction: 1 | -1,
): Tensor<D> {
  const [, tokens, heads, headSize] = x.shape
  const pairs = x.size / 2
  const y = step.empty(x.dtype, x.shape, 'rope')
  const params = { pairs, tokens, heads, half_size: headSize / 2, offset, theta, direction }
  step.run(wgsl.rotate, { x, y }, params, { workgroups: grid(Math.ceil(pairs / 64)), flops: 10 * pairs })
  return step.node('rope', y, [x], (dy) => [turn(step, dy, theta, offset, direction === 1 ? -1 : 1)])
}
