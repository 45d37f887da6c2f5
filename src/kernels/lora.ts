import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { cast } from './copy.ts'
import { scale } from './elementwise.ts'
import { mostGemvRows } from './gemv.ts'
import { type Int8Weight, int8Linear, packedInt8 } from './int8.ts'
import { linear, matmul } from './matmul.ts'
import { type Nf4Weight, nf4Linear, packedNf4 } from './nf4.ts'
import { packedBackward, packedForward } from './packed.ts'
import type { PackedWeight } from './packed-weight.ts'
import { fitsThin, narrow, thinGradient, widen } from './thin-products.ts'

/** The two thin matrices of a low-rank update to a weight (N, K). */
export interface LoraPair<D extends FloatType = FloatType> {
  /** (R, K) */
  readonly a: Tensor<D>
  /** (N, R); zero at the start, so that the adapter begins as nothing. */
  readonly b: Tensor<D>
  /** Factor of the update. */
  readonly scale: number
}

/** A weight (N, K) of a linear layer: dense, f16 under f32 activations too, or quantised. */
export type LinearWeight<D extends FloatType = FloatType> = Tensor<D | 'f16'> | Nf4Weight | Int8Weight

/**
 * x · weightᵀ over a weight of any kind: `linear`, `nf4Linear` or `int8Linear`.
 * @param x f32 or f16 (…, K).
 * @returns the dtype of `x`, (…, N).
 */
export function anyLinear<D extends FloatType>(step: Step, x: Tensor<D>, weight: LinearWeight<D>): Tensor<D> {
  if (weight instanceof Tensor) return linear(step, x, weight)
  return 'absmax' in weight ? int8Linear(step, x, weight) : nf4Linear(step, x, weight)
}

/** Checks a pair against its layer. @returns R. @throws RangeError */
function rankOf(op: string, x: Tensor, n: number, { a, b }: LoraPair): number {
  const [rank, k] = [a.shape[0], x.shape.at(-1)!]
  expectShape(op, x, 'a', a, [rank, k])
  expectShape(op, x, 'b', b, [n, rank])
  return rank
}

/**
 * base + scale · (x · aᵀ) · bᵀ: what a low-rank adapter adds to a linear layer's output. x · aᵀ stays f32 whatever the
 * storage, and the second product is added where it is made. Replaces `add(base, linear(scale(linear(x, a)), b))`, which
 * {@link plainLora} is and which runs where K, N or R is no multiple of four.
 * @param base f32 or f16 (…, N): the layer's own output for `x`, over a dense or a quantised weight.
 * @param x the dtype of `base`, (…, K).
 * @returns the dtype and shape of `base`. Its gradients are leaves: they cannot be differentiated again.
 * @throws RangeError when the sizes do not fit.
 * @see Hu et al., LoRA, 2021, section 4.1.
 */
export function lora<D extends FloatType>(step: Step, base: Tensor<D>, x: Tensor<D>, pair: LoraPair<D>): Tensor<D> {
  const n = base.shape.at(-1)!
  const rank = rankOf('lora', x, n, pair)
  expectShape('lora', x, 'base', base, [...x.shape.slice(0, -1), n])
  if (!fitsThin(n, rank, x.shape.at(-1)!)) return plainLora(step, base, x, pair)
  const { a, b, scale } = pair
  const thin = narrow(step, 'nt', x, a, scale)
  const y = widen(step, 'nt', thin, b, base.shape, base)
  return step.node('lora', y, [base, x, a, b], (dy) => {
    const slope = x.requiresGrad || a.requiresGrad ? narrow(step, 'nn', dy, b, scale) : null
    return [
      dy,
      x.requiresGrad ? widen(step, 'nn', slope!, a, x.shape) : null,
      a.requiresGrad ? thinGradient(step, slope!, x) : null,
      b.requiresGrad ? thinGradient(step, thin, dy, { transposed: true }) : null,
    ]
  })
}

/** The plain ops that {@link lora} replaces, for any sizes; x · aᵀ is rounded to the storage type. */
export function plainLora<D extends FloatType>(
  step: Step,
  base: Tensor<D>,
  x: Tensor<D>,
  pair: LoraPair<D>,
): Tensor<D> {
  const thin = linear(step, x, pair.a)
  return add(step, base, linear(step, pair.scale === 1 ? thin : scale(step, thin, pair.scale), pair.b))
}

/**
 * x · weightᵀ + scale · (x · aᵀ) · bᵀ: a linear layer with its low-rank update. Over a quantised weight the update is
 * summed where the layer's own product is made, forward and for dx: it costs no pass over y or dx. Replaces
 * `lora(anyLinear(x, weight), x, pair)`, which runs where K, N or R is no multiple of four.
 * @param x f32 or f16 (…, K).
 * @param weight (N, K): dense of the dtype of `x` or f16, NF4 or int8.
 * @returns the dtype of `x`, (…, N). Its gradients are leaves: they cannot be differentiated again.
 * @throws RangeError when the sizes do not fit.
 * @see Dettmers et al., QLoRA, 2023, section 3.
 */
export function loraLinear<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: LinearWeight<D>,
  pair: LoraPair<D>,
): Tensor<D> {
  const [n, k] = weight.shape
  if (weight.shape.length !== 2 || x.shape.at(-1) !== k)
    throw new RangeError(
      `Cannot loraLinear x ${showShape(x.shape)}: weight is ${showShape(weight.shape)}, so x must be (…, ${k})`,
    )
  const rank = rankOf('loraLinear', x, n, pair)
  if (!fitsThin(n, k, rank)) return lora(step, anyLinear(step, x, weight), x, pair)
  const base = weight instanceof Tensor ? denseBase(step, x, weight) : packedBase(step, x, packedOf(weight))
  const { a, b, scale } = pair
  const thin = narrow(step, 'nt', x, a, scale)
  const y = base.forward(thin, b)
  const dense = weight instanceof Tensor ? [weight] : []
  return step.node('loraLinear', y, [x, a, b, ...dense], (dy) => {
    const slope = x.requiresGrad || a.requiresGrad ? narrow(step, 'nn', dy, b, scale) : null
    return [
      x.requiresGrad ? base.backward(dy, slope!, a) : null,
      a.requiresGrad ? thinGradient(step, slope!, x) : null,
      b.requiresGrad ? thinGradient(step, thin, dy, { transposed: true }) : null,
      ...dense.map(() => base.weightGradient?.(dy) ?? null),
    ]
  })
}

function packedOf(weight: Nf4Weight | Int8Weight): PackedWeight {
  return 'absmax' in weight ? packedInt8('loraLinear', weight) : packedNf4('loraLinear', weight)
}

/** A layer's own products, to which a low-rank update is added. None is on the tape. */
interface Base<D extends FloatType> {
  /** x · weightᵀ + thin · bᵀ */
  forward(thin: Tensor<'f32'>, b: Tensor<D>): Tensor<D>
  /** dy · weight + slope · a */
  backward(dy: Tensor<D>, slope: Tensor<'f32'>, a: Tensor<D>): Tensor<D>
  weightGradient?(dy: Tensor<D>): Tensor | null
}

function denseBase<D extends FloatType>(step: Step, x: Tensor<D>, weight: Tensor<D | 'f16'>): Base<D> {
  const rows = (t: Tensor<D>) => step.reshape(t, [t.size / t.shape.at(-1)!, t.shape.at(-1)!])
  return {
    forward(thin, b) {
      const y = step.withoutGradients(() => linear(step, x, weight))
      return widen(step, 'nt', thin, b, y.shape, y)
    },
    backward: (dy, slope, a) => widen(step, 'nn', slope, a, x.shape, matmul(step, dy, weight)),
    weightGradient: (dy) =>
      weight.requiresGrad ? cast(step, matmul(step, rows(dy), rows(x), { transposeA: true }), weight.dtype) : null,
  }
}

function packedBase<D extends FloatType>(step: Step, x: Tensor<D>, weight: PackedWeight): Base<D> {
  return {
    forward(thin, b) {
      if (thin.shape[0] > mostGemvRows) return packedForward(step, 'loraLinear', x, weight, { thin, wide: b })
      const y = packedForward(step, 'loraLinear', x, weight)
      return widen(step, 'nt', thin, b, y.shape, y)
    },
    backward: (dy, slope, a) => packedBackward(step, dy, weight, x.shape, { thin: slope, wide: a }),
  }
}
