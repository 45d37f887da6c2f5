import type { FloatType } from '../core/dtype.ts'
import { type Shape, showShape } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { nf4 as wgsl } from './wgsl.gen.ts'

/** A weight matrix (N, K) in NF4 on the GPU. */
export interface Nf4Weight {
  /** (N, K), K a multiple of 8 and N·K of 64. */
  readonly shape: Shape
  /** u32 (N·K/8): 8 codes a word, the first of each byte in its high nibble. */
  readonly codes: Tensor<'u32'>
  /** f32 (N·K/64): largest magnitude of each block of 64 values of the flattened matrix. */
  readonly scales: Tensor<'f32'>
}

/** Checks an NF4 weight's parts against each other. @throws RangeError */
function sizes(op: string, weight: Nf4Weight): { n: number; k: number } {
  const [n, k] = weight.shape
  if (k % 8 !== 0 || (n * k) % 64 !== 0)
    throw new RangeError(`Cannot ${op} weight ${showShape(weight.shape)}: K must be a multiple of 8 and N·K of 64`)
  if (weight.codes.size !== (n * k) / 8 || weight.scales.size !== (n * k) / 64)
    throw new RangeError(
      `Cannot ${op} weight ${showShape(weight.shape)}: it needs ${(n * k) / 8} words and ${(n * k) / 64} scales, ` +
        `got ${weight.codes.size} and ${weight.scales.size}`,
    )
  return { n, k }
}

/**
 * The whole matrix, decoded: level(code) · scale.
 * @param dtype of the result.
 * @returns (N, K). It has no gradient: quantised weights are frozen.
 * @see Dettmers et al., QLoRA, 2023, section 3.
 */
export function dequantizeNf4<D extends FloatType>(step: Step, weight: Nf4Weight, dtype: D): Tensor<D> {
  const { n, k } = sizes('dequantizeNf4', weight)
  const y = step.empty(dtype, weight.shape, 'dequantized')
  const { codes, scales } = weight
  step.run(
    wgsl.dequantize,
    { codes, scales, weight: y },
    { m: 0, n, k },
    {
      workgroups: grid(Math.ceil(y.size / 64)),
      flops: y.size,
    },
  )
  return y
}

/**
 * x · weightᵀ with the weight read in its packed form, forward and for dx; replaces `linear(x, dequantizeNf4(weight))`.
 * @param x f32 or f16 (…, K).
 * @returns the dtype of `x`, (…, N). The weight is frozen and gets no gradient.
 * @throws RangeError when the sizes of K differ.
 */
export function nf4Linear<D extends FloatType>(step: Step, x: Tensor<D>, weight: Nf4Weight): Tensor<D> {
  const { n, k } = sizes('nf4Linear', weight)
  if (x.shape.at(-1) !== k)
    throw new RangeError(
      `Cannot nf4Linear x ${showShape(x.shape)}: weight is ${showShape(weight.shape)}, so x must be (…, ${k})`,
    )
  const { codes, scales } = weight
  const params = { m: x.size / k, n, k }
  const flops = 2 * params.m * n * k
  const y = step.empty(x.dtype, [...x.shape.slice(0, -1), n], 'nf4Linear')
  const rows = Math.ceil(params.m / 8)
  step.run(wgsl.forward, { codes, scales, x, y }, params, { workgroups: [Math.ceil(n / 64), rows], flops })
  return step.node('nf4Linear', y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    const workgroups = [Math.ceil(k / 8 / 64), rows]
    step.run(wgsl.backward, { codes, scales, dy, dx }, params, { workgroups, flops })
    return [dx]
  })
}
