import type { FloatType } from '../core/dtype.ts'
import { expectRank } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { embedding as wgsl } from './wgsl.gen.ts'

/**
 * The rows of a table named by ids. Its gradient adds rows in the order of the ids, so it is the same every time.
 * @param table f32 or f16 (V, C).
 * @param ids u32, any shape; an id of V or more gives a row of NaN.
 * @returns the dtype of `table`, (…ids, C).
 * @throws RangeError when `table` is not (V, C).
 */
export function embedding<D extends FloatType>(step: Step, table: Tensor<D>, ids: Tensor<'u32'>): Tensor<D> {
  expectRank('embedding', table, 'V, C', 2)
  const [rows, columns] = table.shape
  const params = { rows, columns, count: ids.size, first: 0, total: rows }
  const y = step.empty(table.dtype, [...ids.shape, columns], 'embedding')
  const dispatch = { workgroups: grid(Math.ceil(y.size / 64)), flops: 0, bytes: 2 * y.bytes + ids.bytes }
  let first = 0
  for (const window of table.windows ?? [table]) {
    const part = { ...params, rows: window.shape[0], first }
    step.run(wgsl.forward, { table: window, ids, y }, part, dispatch)
    first += window.shape[0]
  }
  return step.node('embedding', y, [table], (dy) => {
    const dtable = step.empty(table.dtype, table.shape, 'dtable')
    step.run(wgsl.backward, { dy, ids, dtable }, params, {
      workgroups: [rows, Math.ceil(columns / 64)],
      flops: dy.size,
    })
    return [dtable]
  })
}
