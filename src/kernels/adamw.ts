import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, mapDispatch } from './parts.ts'
import { adamwQuads as quads, adamw as single } from './wgsl.gen.ts'

/** One parameter with its gradient and its moments. */
export interface AdamwTarget {
  /** f32 or f16, rewritten in place. */
  readonly weight: Tensor<FloatType>
  /** The dtype and shape of `weight`. */
  readonly gradient: Tensor<FloatType>
  /** f32, the shape of `weight`: running mean of the gradient, zero before the first step. */
  readonly m: Tensor<'f32'>
  /** f32, the shape of `weight`: running mean of its square, zero before the first step. */
  readonly v: Tensor<'f32'>
  /** Decoupled weight decay of this parameter. */
  readonly decay: number
}

/** What changes from one AdamW step to the next. */
export interface AdamwRates {
  /** Learning rate of this step. */
  readonly lr: number
  /** Number of this step, from 1: it corrects the bias of the moments. */
  readonly t: number
}

/** Settings of one AdamW step. */
export interface AdamwOptions {
  /** Numbers, or a tensor f32 [3] that {@link adamwRates} fills: a recorded step reads it anew at every replay. */
  readonly rates: AdamwRates | Tensor<'f32'>
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
  /**
   * Largest norm of all gradients together; they are scaled down to it. No clipping unless told. A tensor is what
   * {@link clipGradients} gave for these targets and others.
   */
  readonly clip?: number | Tensor<'f32'>
}

/** Workgroups that sum the squares of one gradient. */
const sharesEach = 16

/** The betas that AdamW has unless told. */
export const usualBetas = { beta1: 0.9, beta2: 0.95 }

/**
 * The contents of a tensor of rates: learning rate and the corrections of both moments.
 * @throws RangeError when `t` is not a positive integer.
 */
export function adamwRates(
  { lr, t }: AdamwRates,
  { beta1 = usualBetas.beta1, beta2 = usualBetas.beta2 } = {},
): number[] {
  if (!Number.isInteger(t) || t < 1) throw new RangeError(`Cannot adamw: t must be a positive integer, got ${t}`)
  return [lr, 1 - beta1 ** t, 1 - beta2 ** t]
}

/**
 * The norm of all gradients together, and the factor that brings it down to `largest`.
 * @param largest 0 means no clipping: the factor is 1.
 * @returns f32 [2]: the factor, and the norm before.
 */
export function clipGradients(step: Step, gradients: readonly Tensor<FloatType>[], largest: number): Tensor<'f32'> {
  const shares = step.empty('f32', [gradients.length * sharesEach], 'squares')
  for (const [i, gradient] of gradients.entries()) {
    const { wgsl, width } = inParts(single, quads, gradient.size)
    const params = { size: gradient.size / width, offset: i * sharesEach }
    step.run(wgsl.squareSum, { gradient, shares }, params, {
      workgroups: [sharesEach],
      flops: 2 * gradient.size,
      bytes: gradient.bytes,
    })
  }
  const factor = step.empty('f32', [2], 'clip')
  step.run(
    single.clipFactor,
    { squares: shares, factor },
    { count: shares.size, largest },
    { workgroups: [1], flops: shares.size },
  )
  return factor
}

/** The tensor of rates that `options` gives or asks for. */
export function ratesTensor(step: Step, { rates, beta1, beta2 }: AdamwOptions): Tensor<'f32'> {
  return 'lr' in rates ? step.upload('f32', [3], adamwRates(rates, { beta1, beta2 }), 'rates') : rates
}

/**
 * One AdamW step over all targets, in place, with the norm of all gradients clipped on the GPU.
 * @returns f32 [2]: the factor that the gradients were scaled by, and their norm before.
 * @throws RangeError when shapes differ or `t` is not a positive integer.
 * @see Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, algorithm 2.
 */
export function adamw(step: Step, targets: readonly AdamwTarget[], options: AdamwOptions): Tensor<'f32'> {
  const { beta1 = usualBetas.beta1, beta2 = usualBetas.beta2, eps = 1e-8, clip = 0 } = options
  const rates = ratesTensor(step, options)
  const gradients = targets.map(({ gradient }) => gradient)
  const factor = typeof clip === 'number' ? clipGradients(step, gradients, clip) : clip
  for (const { weight, gradient, m, v, decay } of targets) {
    expectShape('adamw', weight, 'gradient', gradient, weight.shape)
    expectShape('adamw', weight, 'm', m, weight.shape)
    expectShape('adamw', weight, 'v', v, weight.shape)
    const { wgsl, width } = inParts(single, quads, weight.size)
    const params = { size: weight.size / width, beta1, beta2, eps, decay }
    step.run(wgsl.update, { gradient, clip: factor, weight, m, v, rates }, params, {
      ...mapDispatch(step.gpu, params.size, 14 * weight.size),
      bytes: gradient.bytes + 2 * (weight.bytes + m.bytes + v.bytes),
    })
  }
  return factor
}
