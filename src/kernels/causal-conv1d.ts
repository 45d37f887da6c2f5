import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum } from './column-sum.ts'
import { causalConv1d as wgsl } from './wgsl.gen.ts'

/** How {@link causalConv1d} ends. */
export interface ConvOptions<D extends FloatType> {
  /** The dtype of `x`, (C); none unless told. */
  readonly bias?: Tensor<D>
  /** `silu` puts x · sigmoid(x) behind the sum; `none` unless told. */
  readonly activation?: 'none' | 'silu'
}

/** Tokens that one invocation walks; the `span` of the shader. */
const span = 32

/**
 * A convolution over time, each channel on its own, that sees no later token:
 * y[t, c] = bias[c] + Σ_k weight[c, k] · x[t − (K − 1) + k, c], with zeros before the first token.
 * @param x f32 or f16 (B, T, C).
 * @param weight the dtype of `x`, (C, K), K from 2 to 8; the last tap is the present token, as in PyTorch's conv1d.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when the shapes do not fit or K is out of range.
 * @see Gu and Dao, Mamba, 2023, section 3.4.
 */
export function causalConv1d<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: Tensor<D>,
  { bias, activation = 'none' }: ConvOptions<D> = {},
): Tensor<D> {
  expectRank('causalConv1d', x, 'B, T, C', 3)
  const [batch, tokens, channels] = x.shape
  const taps = weight.shape.at(-1) ?? 0
  expectShape('causalConv1d', x, 'weight', weight, [channels, taps])
  if (taps < 2 || taps > 8)
    throw new RangeError(`Cannot causalConv1d x ${showShape(x.shape)}: weight must have 2 to 8 taps, got ${taps}`)
  if (bias) expectShape('causalConv1d', x, 'bias', bias, [channels])

  const slices = Math.min(64, Math.ceil((batch * tokens) / span))
  const has_silu = activation === 'silu' ? 1 : 0
  const params = { batch, tokens, channels, has_bias: bias ? 1 : 0, has_silu, slices }
  const blocks = Math.ceil(channels / 64)
  const flops = 2 * taps * x.size
  const layout = { workgroups: [blocks, Math.ceil(tokens / span), batch], constants: { taps } }
  const operands = { x, weight, bias: bias ?? weight }
  const y = step.empty(x.dtype, x.shape, 'causalConv1d')
  step.run(wgsl.forward, { ...operands, y }, params, { ...layout, flops: flops + 5 * has_silu * x.size })

  return step.node('causalConv1d', y, bias ? [x, weight, bias] : [x, weight], (dy) => {
    let slope = dy
    if (has_silu) {
      slope = step.empty(x.dtype, x.shape, 'slope')
      step.run(wgsl.backwardSlopes, { ...operands, dy, g: slope }, params, { ...layout, flops: flops + 9 * x.size })
    }
    const dx = x.requiresGrad ? step.empty(x.dtype, x.shape, 'dx') : null
    if (dx) step.run(wgsl.backwardX, { weight, slope, dx }, params, { ...layout, flops })
    if (!weight.requiresGrad && !bias?.requiresGrad) return [dx, null, null]
    const weight_sums = step.empty('f32', [slices, channels * taps], 'weight slices')
    const bias_sums = step.empty('f32', [slices, channels], 'bias slices')
    step.run(wgsl.backwardWeight, { x, slope, weight_sums, bias_sums }, params, {
      workgroups: [blocks, slices],
      flops: flops + x.size,
      constants: { taps },
    })
    return [
      dx,
      weight.requiresGrad ? step.reshape(columnSum(step, weight_sums, weight.dtype), weight.shape) : null,
      bias?.requiresGrad ? columnSum(step, bias_sums, bias.dtype) : null,
    ]
  })
}
