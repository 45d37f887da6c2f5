import type { FloatType } from '../core/dtype.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { extrasCost, type GemvExtras, splitFor } from './gemv.ts'
import { type PackedWeight, weightOperands } from './packed-weight.ts'
import { packedGemv as narrow, packedGemvWide as wide } from './wgsl.gen.ts'

/** Whether the kernel that reads 16 bytes at once, and knows the extras, takes this weight. */
export function readsWide(step: Step, { shape, form, scale_codes }: PackedWeight): boolean {
  const fits = shape[1] % 32 === 0 && (form !== 1 || scale_codes.size % 4 === 0)
  return fits && step.gpu.capabilities.subgroups
}

/**
 * Writes x · weightᵀ to `y`, for one to four rows, with the weight read in its packed form; not on the tape.
 * @param x f32 or f16 (…, K), at most four rows.
 * @param y the dtype of `x`, (…, N).
 * @param extras only for weights that {@link readsWide} accepts, and a gate only with plain scales.
 */
export function packedGemvInto<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: PackedWeight,
  y: Tensor<D>,
  extras: GemvExtras<D, PackedWeight> = {},
): void {
  const [n, k] = weight.shape
  const rows = x.size / k
  const { constants, weights, bytes } = extrasCost(extras)
  const { offset, form } = weight
  const isWide = readsWide(step, weight)
  const split = splitFor(step.gpu, isWide ? weight.codes.size / n / 4 : k / 8)
  const dispatch = {
    workgroups: [Math.ceil((n * split) / 256)],
    flops: 2 * weights * rows * n * k,
    bytes: x.bytes + y.bytes + weights * weight.bytes + bytes,
  }
  if (!isWide) {
    const operands = { ...weightOperands(weight), x, y }
    step.run(narrow.forward, operands, { n, k, offset }, { ...dispatch, constants: { rows, split, form } })
    return
  }
  const { norm, gate, base } = extras
  const second = gate?.second ?? { codes: weight.scale_codes, scales: weight.scale_map }
  const operands = {
    ...{ words: weight.codes, scales: weight.scales, second_words: second.codes, second_scales: second.scales },
    ...{ x, y, gain: norm?.gain ?? x, base: base ?? x },
  }
  // A software GPU of eight lanes has no faster table than its shuffle.
  const tabled = +(step.gpu.software && step.gpu.capabilities.subgroupSize === 8)
  const params = { n, k, eps: norm?.eps ?? 0, offset }
  step.run(wide.forward, operands, params, { ...dispatch, constants: { rows, split, form, tabled, ...constants } })
}
