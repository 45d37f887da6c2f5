import type { FloatType } from '../core/dtype.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { gemv as wgsl } from './wgsl.gen.ts'

/** Most rows of x for which a product with a weight is cheaper by reading the weight once than by tiles. */
export const mostGemvRows = 4

/**
 * Invocations that share four rows of a weight: enough for coalesced loads, few enough that each has something to add.
 * @param loads how many loads along K a row takes.
 */
export function splitFor(loads: number): 8 | 16 | 32 | 64 {
  return loads >= 512 ? 64 : loads >= 256 ? 32 : loads >= 128 ? 16 : 8
}

/**
 * Writes x · weightᵀ to `y`, for one to four rows; not on the tape. `matmul` calls it.
 * @param x f32 or f16 (M, K), M at most {@link mostGemvRows}, K a multiple of 4.
 * @param weight the dtype of `x`, (N, K).
 * @param y the dtype of `x`, (M, N).
 */
export function gemvInto<D extends FloatType>(step: Step, x: Tensor<D>, weight: Tensor<D>, y: Tensor<D>): void {
  const [n, k] = weight.shape.slice(-2)
  const rows = x.size / k
  const split = splitFor(k / 4)
  const workgroups = [Math.ceil((n * split) / 256)]
  step.run(
    wgsl.forward,
    { x, weight, y },
    { n, k },
    { workgroups, flops: 2 * rows * n * k, constants: { rows, split } },
  )
}
