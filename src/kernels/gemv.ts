import type { FloatType } from '../core/dtype.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { gemv as wgsl } from './wgsl.gen.ts'

/** Most rows of x for which a product with a weight is cheaper by reading the weight once than by tiles. */
export const mostGemvRows = 4

/**
 * Invocations that share four rows of a weight: a subgroup, so that their loads are coalesced. More, and a software GPU,
 * which runs one subgroup after another, would walk every row several times.
 */
export function splitFor({ capabilities }: Gpu): number {
  return [64, 32, 16].find((size) => size <= capabilities.subgroupSize) ?? 8
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
  const split = splitFor(step.gpu)
  const workgroups = [Math.ceil((n * split) / 256)]
  step.run(
    wgsl.forward,
    { x, weight, y },
    { n, k },
    { workgroups, flops: 2 * rows * n * k, constants: { rows, split } },
  )
}
