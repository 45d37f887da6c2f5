import type { FloatType } from '../core/dtype.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, rowDispatch } from './parts.ts'
import { embeddingQuads as quads, embedding as single } from './wgsl.gen.ts'

/** Positions that one dispatch links: lavapipe ends all loops of an invocation after 65,535 turns in all. */
const mostLinks = 32_768

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
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width, count: ids.size, first: 0, total: rows }
  const y = step.empty(table.dtype, [...ids.shape, columns], 'embedding')
  takeRows(step, table, ids, y)
  return step.node('embedding', y, [table], (dy) => {
    const dtable = step.empty(table.dtype, table.shape, 'dtable')
    const { first, next } = chains(step, ids, rows)
    step.run(wgsl.backward, { firsts: first, nexts: next, dy, dtable }, params, {
      workgroups: grid(rows * Math.ceil(params.columns / 64)),
      flops: dy.size,
    })
    return [dtable]
  })
}

/**
 * y = the rows of a table named by ids, in place: `y` is a tensor or a window of one (see {@link Step.rows}).
 * @param table f32 or f16 (V, C).
 * @param ids u32 (N); an id of V or more gives a row of NaN.
 * @param y the dtype of `table`, (N, C).
 * @throws RangeError when the shapes do not fit.
 */
export function takeRows<D extends FloatType>(step: Step, table: Tensor<D>, ids: Tensor<'u32'>, y: Tensor<D>): void {
  expectRank('takeRows', table, 'V, C', 2)
  const [rows, columns] = table.shape
  expectShape('takeRows', table, 'y', y, [...ids.shape, columns])
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width, count: ids.size, first: 0, total: rows }
  const dispatch = { ...rowDispatch(step.gpu, ids.size, params.columns, 0), bytes: 2 * y.bytes + ids.bytes }
  let first = 0
  for (const window of table.windows ?? [table]) {
    const part = { ...params, rows: window.shape[0], first }
    step.run(wgsl.forward, { table: window, ids, y }, part, dispatch)
    first += window.shape[0]
  }
}

/** Where each id below `rows` stands: its first position, and after each position the next; ids.size where none is. */
function chains(step: Step, ids: Tensor<'u32'>, rows: number) {
  const { software, capabilities } = step.gpu
  const group_size = software ? capabilities.subgroupSize : 64
  const walkers = software ? 2 * group_size : 1024
  const first = step.empty('u32', [rows], 'first')
  const next = step.empty('u32', ids.shape, 'next')
  for (let end = ids.size; end > 0; end -= mostLinks) {
    const params = { rows, count: ids.size, begin: Math.max(0, end - mostLinks), end, fresh: end === ids.size ? 1 : 0 }
    step.run(single.backwardChain, { first, ids, next }, params, {
      workgroups: [Math.ceil(walkers / group_size)],
      flops: 0,
      constants: { walkers, group_size },
    })
  }
  return { first, next }
}
