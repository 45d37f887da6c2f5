import type { FloatType } from '../core/dtype.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { gemv as wgsl } from './wgsl.gen.ts'

/** Most rows of x for which a product with a weight is cheaper by reading the weight once than by tiles. */
export const mostGemvRows = 4

/** Activations that a product can end with. */
export type Activation = 'silu' | 'gelu'

/** What a product of few rows does beside the product, in the same kernel. */
export interface GemvExtras<D extends FloatType, W> {
  /** Multiplies with rmsNorm(x, gain) instead of x. */
  readonly norm?: { readonly gain: Tensor<D>; readonly eps: number }
  /** y = activation(x · weightᵀ) ∘ (x · secondᵀ) */
  readonly gate?: { readonly second: W; readonly activation: Activation }
  /** Added at the end, of y's shape. */
  readonly base?: Tensor<D>
}

/**
 * Invocations that share four rows of a weight of `loads` loads a row: a subgroup, so that their loads are coalesced, or
 * less where too many of them would idle. More, and a software GPU, which runs one subgroup after another, would walk every
 * row several times.
 */
export function splitFor({ capabilities }: Gpu, loads: number): number {
  const fits = [64, 32, 16].filter((size) => size <= capabilities.subgroupSize)
  return fits.find((size) => Math.ceil(loads / size) * size <= 1.34 * loads) ?? 8
}

/** Of the extras: the constants of the shader, and how many products, operations and bytes they cost. */
export function extrasCost<D extends FloatType, W>({ norm, gate, base }: GemvExtras<D, W>) {
  const gated = gate ? (gate.activation === 'silu' ? 1 : 2) : 0
  const bytes = (norm?.gain.bytes ?? 0) + (base?.bytes ?? 0)
  return {
    constants: { normed: +(norm !== undefined), gated, added: +(base !== undefined) },
    weights: gate ? 2 : 1,
    bytes,
  }
}

/**
 * Writes x · weightᵀ to `y`, for one to four rows; not on the tape. `matmul` calls it.
 * @param x f32 or f16 (M, K), M at most {@link mostGemvRows}, K a multiple of 4.
 * @param weight the dtype of `x`, or f16, (N, K); a second one too.
 * @param y the dtype of `x`, (M, N).
 */
export function gemvInto<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  y: Tensor<D>,
  extras: GemvExtras<D, Tensor<D | 'f16'>> = {},
): void {
  const [n, k] = weight.shape.slice(-2)
  const rows = x.size / k
  const split = splitFor(step.gpu, k / 4)
  const { constants, weights, bytes } = extrasCost(extras)
  const { norm, gate, base } = extras
  step.run(
    wgsl.forward,
    { x, weight, y, gain: norm?.gain ?? x, second: gate?.second ?? weight, base: base ?? x },
    { n, k, eps: norm?.eps ?? 0 },
    {
      workgroups: [Math.ceil((n * split) / 256)],
      flops: 2 * weights * rows * n * k,
      bytes: x.bytes + weights * weight.bytes + y.bytes + bytes,
      constants: { rows, split, ...constants },
    },
  )
}
