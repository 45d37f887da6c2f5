import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type AdamwOptions, clipGradients, ratesTensor, usualBetas } from './adamw.ts'
import { adamw8 as wgsl } from './wgsl.gen.ts'

/** Both moments of a parameter in 8 bits an element: codes, and the largest magnitudes of each block of 256. */
export interface Moments8 {
  /** u32 (64 · ⌈size / 256⌉): four signed codes a word, the first lowest. */
  readonly m: Tensor<'u32'>
  /** u32, the shape of `m`: four unsigned codes a word. */
  readonly v: Tensor<'u32'>
  /** f32 (⌈size / 256⌉, 2): largest magnitude of m and of v in each block. */
  readonly largest: Tensor<'f32'>
}

/** One parameter with its gradient and its moments in 8 bits. */
export interface Adamw8Target extends Moments8 {
  /** f32 or f16, rewritten in place. */
  readonly weight: Tensor<FloatType>
  /** The dtype and shape of `weight`. */
  readonly gradient: Tensor<FloatType>
  /** Decoupled weight decay of this parameter. */
  readonly decay: number
}

/** Settings of one step of {@link adamw8}. */
export interface Adamw8Options extends AdamwOptions {
  /** f32 (512): the 256 ascending values of the codes of m, with 0 and ±1 among them, then those of v, from 0 to 1. */
  readonly maps: Tensor<'f32'>
}

const blockSize = 256

/** Moments of zero for `size` elements. */
export function zeroMoments8(scope: Scope, size: number, label: string): Moments8 {
  const blocks = Math.ceil(size / blockSize)
  return {
    m: scope.filled('u32', [64 * blocks], 0, `${label}.m`),
    v: scope.filled('u32', [64 * blocks], 0, `${label}.v`),
    // Whatever value code 0 stands for, 0 times it is zero.
    largest: scope.filled('f32', [blocks, 2], 0, `${label}.largest`),
  }
}

/**
 * One AdamW step over all targets, in place, with the moments kept as 8-bit codes of a blockwise dynamic map: a quarter of
 * the memory of `adamw`, which it replaces. A second moment above zero is never rounded to zero, unlike in bitsandbytes.
 * @returns f32 [2]: the factor that the gradients were scaled by, and their norm before.
 * @throws RangeError when shapes differ or `t` is not a positive integer.
 * @see Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021, section 2.
 */
export function adamw8(step: Step, targets: readonly Adamw8Target[], options: Adamw8Options): Tensor<'f32'> {
  const { beta1 = usualBetas.beta1, beta2 = usualBetas.beta2, eps = 1e-8, clip = 0, maps } = options
  const rates = ratesTensor(step, options)
  const gradients = targets.map(({ gradient }) => gradient)
  const factor = typeof clip === 'number' ? clipGradients(step, gradients, clip) : clip
  for (const { weight, gradient, m, v, largest, decay } of targets) {
    const blocks = Math.ceil(weight.size / blockSize)
    expectShape('adamw8', weight, 'gradient', gradient, weight.shape)
    expectShape('adamw8', weight, 'm', m, [64 * blocks])
    expectShape('adamw8', weight, 'v', v, [64 * blocks])
    expectShape('adamw8', weight, 'largest', largest, [blocks, 2])
    expectShape('adamw8', weight, 'maps', maps, [2 * 256])
    const params = { size: weight.size, blocks, beta1, beta2, eps, decay }
    step.run(wgsl.update, { gradient, clip: factor, weight, m, v, largest, maps, rates }, params, {
      workgroups: grid(blocks),
      flops: 80 * weight.size,
      bytes: gradient.bytes + 2 * (weight.bytes + m.bytes + v.bytes + largest.bytes),
    })
  }
  return factor
}
