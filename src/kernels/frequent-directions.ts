import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { matmul } from './matmul.ts'
import { sketchRows, frequentDirections as wgsl } from './wgsl.gen.ts'

/** Most rows of a matrix that {@link jacobiEigen} takes. */
export const mostJacobiRows = 256
const mostSweeps = 12
const fewLanes = 64
const manyLanes = 256

/**
 * Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi rotations in one workgroup.
 * @param g f32 (n, n), n even and at most 256. It is overwritten: its diagonal becomes the eigenvalues, in no order.
 * @returns f32 (n, n): the eigenvectors as rows.
 * @throws RangeError for another shape.
 * @see Brent and Luk, The Solution of Singular-Value and Symmetric Eigenvalue Problems on Multiprocessor Arrays, 1985.
 */
export function jacobiEigen(step: Step, g: Tensor<'f32'>): Tensor<'f32'> {
  const [n] = g.shape
  if (n % 2 !== 0 || n > mostJacobiRows)
    throw new RangeError(`Cannot jacobiEigen g [${g.shape}]: n must be even and at most ${mostJacobiRows}`)
  expectShape('jacobiEigen', g, 'g', g, [n, n])
  const v = step.empty('f32', [n, n], 'vectors')
  const constants = { lanes: n > fewLanes ? manyLanes : fewLanes }
  const done = step.empty('u32', [1], 'done')
  for (let sweep = 0; sweep < mostSweeps; sweep++) {
    const first = sweep === 0 ? 1 : 0
    step.run(wgsl.jacobi, { g, v, done }, { pairs: n / 2, first }, { workgroups: [1], flops: 9 * n ** 3, constants })
  }
  return v
}

/**
 * One shrink of Frequent Directions, in place: the rows of `buffer` become `kept` rows and zeros, and what the shrink
 * took off every direction is added to `shed`.
 * @param buffer f32 (n, C), n even and at most 256, n and C multiples of four.
 * @param shed f32 (1).
 * @param kept rows that stay, fewer than n.
 * @see Ghashami, Liberty, Phillips and Woodruff, Frequent Directions, 2016.
 */
export function shrinkSketch(step: Step, buffer: Tensor<'f32'>, shed: Tensor<'f32'>, kept: number): void {
  const { rows: n, columns } = rowsAndColumns(buffer.shape)
  if (!(kept < n)) throw new RangeError(`Cannot shrinkSketch buffer [${buffer.shape}] to ${kept} rows: keep fewer`)
  const g = matmul(step, buffer, buffer, { transposeB: true })
  const vectors = jacobiEigen(step, g)
  const rotation = step.empty('f32', [kept, n], 'rotation')
  const operands = { values: g, vectors, kept_rows: rotation, shed }
  step.run(wgsl.shrink, operands, { n, kept }, { workgroups: [1], flops: 2 * n * n })
  const sketch = matmul(step, rotation, buffer)
  const params = { size: buffer.size, kept: kept * columns }
  step.run(sketchRows.replace, { buffer, sketch }, params, { workgroups: grid(Math.ceil(buffer.size / 64)), flops: 0 })
}

/**
 * buffer[to + i] = weights[r] · (x[r] − shift − sum / count), r = from + i, for `rows` rows.
 * @param buffer f32 (…, C).
 * @param x f32 or f16 (…, C).
 * @param weights f32 (rows of `x`). Rows of weight 0 become zeros.
 * @param shift f32 (C).
 * @param sum f32 (C), of x − shift over the whole batch.
 */
export function appendRows(
  step: Step,
  buffer: Tensor<'f32'>,
  batch: { x: Tensor<FloatType>; weights: Tensor<'f32'>; shift: Tensor<'f32'>; sum: Tensor<'f32'>; count: number },
  range: { rows: number; from: number; to: number },
): void {
  const { x, weights, shift, sum, count } = batch
  const { columns } = rowsAndColumns(x.shape)
  const params = { rows: range.rows, columns, from_row: range.from, to_row: range.to, count }
  const dispatch = {
    workgroups: grid(Math.ceil((range.rows * columns) / 64)),
    flops: 3 * range.rows * columns,
    bytes: 8 * range.rows * columns,
  }
  step.run(sketchRows.append, { x, weights, shift, sum, buffer }, params, dispatch)
}

/**
 * buffer[to] = √(before · count / (before + count)) · (batch / count − total / before): what joining a batch to the rows
 * before it adds to the scatter.
 * @param batch f32 (C): the sum of the `count` rows of the batch.
 * @param total f32 (C): the sum of the `before` rows.
 */
export function appendJoin(
  step: Step,
  buffer: Tensor<'f32'>,
  to: number,
  batch: { sum: Tensor<'f32'>; count: number },
  seen: { sum: Tensor<'f32'>; count: number },
): void {
  const columns = batch.sum.size
  const params = { columns, to_row: to, count: batch.count, before: seen.count }
  const dispatch = { workgroups: [Math.ceil(columns / 64)], flops: 4 * columns, bytes: 12 * columns }
  step.run(sketchRows.join, { batch: batch.sum, total: seen.sum, buffer }, params, dispatch)
}
