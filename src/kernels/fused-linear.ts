import type { FloatType } from '../core/dtype.ts'
import { sameShape, showShape } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { gelu, mul, swiglu } from './elementwise.ts'
import { type Activation, type GemvExtras, gemvInto, mostGemvRows } from './gemv.ts'
import { type Int8Weight, packedInt8 } from './int8.ts'
import { anyLinear, type LinearWeight } from './lora.ts'
import { type Nf4Weight, packedNf4 } from './nf4.ts'
import { packedGemvInto, readsWide } from './packed-gemv.ts'
import type { PackedWeight } from './packed-weight.ts'
import { rmsNorm } from './rms-norm.ts'

/** An RMSNorm that a product applies to what it reads. */
export interface Norm<D extends FloatType> {
  /** The dtype of `x`, (K). */
  readonly gain: Tensor<D>
  readonly eps: number
}

/** What {@link fusedLinear} does beside the product. */
export interface FusedLinearOptions<D extends FloatType> {
  readonly norm?: Norm<D>
  /** A residual (…, N). */
  readonly base?: Tensor<D>
}

/**
 * base + rmsNorm(x, gain) · weightᵀ. Replaces `add(base, anyLinear(rmsNorm(x, gain), weight))`: in one kernel for up to
 * four rows without a gradient, as in decoding; by those ops otherwise.
 * @param x f32 or f16 (…, K).
 * @param weight (N, K): dense of the dtype of `x` or f16, NF4 or int8.
 * @returns the dtype of `x`, (…, N).
 * @throws RangeError when the sizes do not fit.
 */
export function fusedLinear<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: LinearWeight<D>,
  { norm, base }: FusedLinearOptions<D> = {},
): Tensor<D> {
  const shape = [...x.shape.slice(0, -1), weight.shape[0]]
  if (base && !sameShape(base.shape, shape))
    throw new RangeError(`Cannot fusedLinear x ${showShape(x.shape)}: base must be ${showShape(shape)}, got ${base}`)
  const made = fewRows(step, x, [weight], { norm, base })
  if (made) return made
  const y = anyLinear(step, norm ? rmsNorm(step, x, norm.gain, { eps: norm.eps }) : x, weight)
  return base ? add(step, base, y) : y
}

/**
 * act(rmsNorm(x, gain) · gateᵀ) ∘ (rmsNorm(x, gain) · upᵀ), the first half of a gated FFN. Replaces
 * `swiglu(anyLinear(n, gate), anyLinear(n, up))`, or `mul(gelu(anyLinear(n, gate)), anyLinear(n, up))`, where
 * n = `rmsNorm(x, gain)`: in one kernel for up to four rows without a gradient, as in decoding; by those ops otherwise.
 * @param x f32 or f16 (…, K).
 * @param gate (N, K): dense of the dtype of `x` or f16, NF4 or int8.
 * @param up (N, K), any of these.
 * @returns the dtype of `x`, (…, N).
 * @throws RangeError when the sizes do not fit.
 */
export function gatedLinear<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  gate: LinearWeight<D>,
  up: LinearWeight<D>,
  { activation, norm }: { readonly activation: Activation; readonly norm?: Norm<D> },
): Tensor<D> {
  if (!sameShape(gate.shape, up.shape))
    throw new RangeError(
      `Cannot gatedLinear x ${showShape(x.shape)}: up must be ${showShape(gate.shape)}, got ${showShape(up.shape)}`,
    )
  const made = fewRows(step, x, [gate, up], { norm }, activation)
  if (made) return made
  const input = norm ? rmsNorm(step, x, norm.gain, { eps: norm.eps }) : x
  const [left, right] = [gate, up].map((weight) => anyLinear(step, input, weight))
  return activation === 'silu' ? swiglu(step, left, right) : mul(step, gelu(step, left), right)
}

/** The product in one kernel; undefined where there is none for it or a gradient is wanted. */
function fewRows<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weights: readonly LinearWeight<D>[],
  extras: Omit<GemvExtras<D, never>, 'gate'>,
  activation: Activation = 'silu',
): Tensor<D> | undefined {
  const [n, k] = weights[0].shape
  const dense = weights.filter((weight) => weight instanceof Tensor)
  const inputs = [x, ...dense, extras.norm?.gain, extras.base].filter((input) => input instanceof Tensor)
  const fits =
    x.shape.at(-1) === k && k % 4 === 0 && x.size / k <= mostGemvRows && !inputs.some(({ windows }) => windows)
  if (!fits || step.records(inputs) || (extras.norm && extras.norm.gain.size !== k)) return undefined
  const output = () => step.empty(x.dtype, [...x.shape.slice(0, -1), n], 'fusedLinear')
  if (dense.length === weights.length) {
    const [weight, second] = dense
    const y = output()
    gemvInto(step, x, weight, y, { ...extras, ...(second ? { gate: { second, activation } } : {}) })
    return y
  }
  if (dense.length > 0) return undefined
  const [weight, second] = weights.map((each) => packedOf(each as Nf4Weight | Int8Weight))
  const together = !second || (second.form === weight.form && weight.form !== 1)
  if (!together || !readsWide(step, weight)) return undefined
  const y = output()
  packedGemvInto(step, x, weight, y, { ...extras, ...(second ? { gate: { second, activation } } : {}) })
  return y
}

function packedOf(weight: Nf4Weight | Int8Weight): PackedWeight {
  return 'absmax' in weight ? packedInt8('fusedLinear', weight) : packedNf4('fusedLinear', weight)
}
