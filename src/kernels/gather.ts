import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, showShape } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { gather as wgsl } from './wgsl.gen.ts'

/**
 * y[r, j] = x[r, indices[r, j]]: some columns of each row.
 * @param x f32 or f16 (…, C).
 * @param indices u32 (…, K) with the same number of rows; one of C or more picks the last column.
 * @returns the dtype of `x`, the shape of `indices`.
 * @throws RangeError when the numbers of rows differ.
 */
export function gather<D extends FloatType>(step: Step, x: Tensor<D>, indices: Tensor<'u32'>): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  const { rows: pickRows, columns: picks } = rowsAndColumns(indices.shape)
  if (rows !== pickRows)
    throw new RangeError(
      `Cannot gather x ${showShape(x.shape)}: indices ${showShape(indices.shape)} must have ${rows} rows`,
    )
  const params = { rows, columns, picks }
  const y = step.empty(x.dtype, indices.shape, 'gather')
  const dispatch = { workgroups: grid(Math.ceil(y.size / 64)), flops: 0, bytes: 2 * y.bytes + indices.bytes }
  step.run(wgsl.forward, { x, indices, y }, params, dispatch)
  return step.node('gather', y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    step.run(wgsl.backward, { dy, indices, dx }, params, {
      workgroups: grid(Math.ceil(x.size / 64)),
      flops: x.size * picks,
    })
    return [dx]
  })
}
