import type { FloatType } from '../core/dtype.ts'
import { cast } from '../kernels/copy.ts'
import { scale } from '../kernels/elementwise.ts'
import type { LoraPair } from '../kernels/lora.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'

// Mixed precision: activations and their gradients in f16, parameters and moments in f32. Small gradients would be rounded
// to zero on their way, so they are multiplied where they begin and divided where they reach the f32 parameters.

/** Largest factor: gradients of a mean loss times it stay far below the largest f16, 65,504. */
const largestFactor = 1024

/** The factor for a loss that is a mean of `tokens` at most: a power of two, so that nothing is rounded. */
export function lossFactor(tokens: number): number {
  return Math.min(largestFactor, 2 ** Math.floor(Math.log2(tokens)))
}

/** `x` as it is; its gradient is multiplied by `factor`. */
export function scaleGradient<D extends FloatType>(step: Step, x: Tensor<D>, factor: number): Tensor<D> {
  const same = step.withoutGradients(() => step.reshape(x, x.shape))
  return step.node('scaleGradient', same, [x], (dy) => [scale(step, dy, factor)])
}

/** A low-rank update in f16 of parameters in f32, which get its gradient divided by `factor`. */
export function halfPair(step: Step, { a, b, scale }: LoraPair, factor: number): LoraPair {
  const half = (master: Tensor<FloatType>) => cast(step, scaleGradient(step, master, 1 / factor), 'f16')
  return { a: half(a), b: half(b), scale }
}
