import type { FloatType } from '../core/dtype.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { splitFor } from './gemv.ts'
import { type PackedWeight, weightOperands } from './packed-weight.ts'
import { packedGemv as wgsl } from './wgsl.gen.ts'

/**
 * Writes x · weightᵀ to `y`, for one to four rows, with the weight read in its packed form; not on the tape.
 * @param x f32 or f16 (…, K), at most four rows.
 * @param y the dtype of `x`, (…, N).
 */
export function packedGemvInto<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: PackedWeight,
  y: Tensor<D>,
): void {
  const [n, k] = weight.shape
  const rows = x.size / k
  const split = splitFor(step.gpu)
  step.run(
    wgsl.forward,
    { ...weightOperands(weight), x, y },
    { n, k, offset: weight.offset },
    {
      workgroups: [Math.ceil((n * split) / 256)],
      flops: 2 * rows * n * k,
      bytes: x.bytes + y.bytes + weight.bytes,
      constants: { rows, split, form: weight.form },
    },
  )
}
