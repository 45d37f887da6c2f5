import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts } from './parts.ts'
import { ropeQuads as quads, rope as single } from './wgsl.gen.ts'

/** Where tokens stand and how far they turn. */
export interface RopeOptions {
  /** Position of the first token of every row, 0 unless told. */
  readonly offset?: number
  /** u32 (B): added to the positions of each row. A recorded step reads it anew at every replay. */
  readonly starts?: Tensor<'u32'>
  /** Factor of cosine and sine; 1 unless told. */
  readonly factor?: number
}

/**
 * Rotary position embedding: turns pair (i, i + R/2) of every head by position · frequencies[i], for the first R numbers
 * of it; the others stay.
 * @param x f32 or f16 (B, T, H, D).
 * @param frequencies f32 (R/2): radians a position, theta^(−2i/R) in the plain form; R at most D.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when `x` is not (B, T, H, D) or R is larger than D.
 * @see Su et al., RoFormer, 2021, section 3.2; in the half-rotation form of Hugging Face's Llama.
 */
export function rope<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  frequencies: Tensor<'f32'>,
  options: RopeOptions = {},
): Tensor<D> {
  expectRank('rope', x, 'B, T, H, D', 4)
  if (2 * frequencies.size > x.shape[3])
    throw new RangeError(
      `Cannot rope x ${showShape(x.shape)}: ${frequencies.size} frequencies turn ${2 * frequencies.size} numbers of a head`,
    )
  if (options.starts) expectShape('rope', x, 'starts', options.starts, [x.shape[0]])
  return turn(step, x, frequencies, options, 1)
}

function turn<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  frequencies: Tensor<'f32'>,
  options: RopeOptions,
  direction: 1 | -1,
): Tensor<D> {
  const [batch, tokens, heads, headSize] = x.shape
  const { offset = 0, factor = 1, starts } = options
  const y = step.empty(x.dtype, x.shape, 'rope')
  const { wgsl, width } = inParts(single, quads, headSize % 4 === 0 ? frequencies.size : headSize)
  // Sines are dear on a GPU in software; a real one would rather have many invocations.
  const heads_each = step.gpu.software ? heads : 1
  const params = {
    ...{ tokens_in_all: batch * tokens, tokens, heads, heads_each, head_size: headSize / width },
    ...{ half_size: frequencies.size / width, offset, factor, direction },
  }
  const blocks = params.tokens_in_all * Math.ceil(heads / heads_each)
  const invocations = blocks * (params.head_size - params.half_size)
  const dispatch = { workgroups: grid(Math.ceil(invocations / 64)), flops: 5 * x.size }
  if (starts) step.run(wgsl.rotateFrom, { x, frequencies, y, starts }, params, dispatch)
  else step.run(wgsl.rotate, { x, frequencies, y }, params, dispatch)
  return step.node('rope', y, [x], (dy) => [turn(step, dy, frequencies, options, direction === 1 ? -1 : 1)])
}
