import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, showShape } from '../core/shape.ts'
import { accumulate } from '../kernels/centre.ts'
import { scale } from '../kernels/elementwise.ts'
import { addColumnSums, type PairSum, pairSum, wideColumns, widenRows } from '../kernels/scatter.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'

/**
 * The shift of a stream, the mean of its first batch, and the sum of its rows less that shift. Moving all rows by about
 * their mean keeps f32 sums exact when the mean is far from zero. Vectors are as long as {@link wideColumns} says.
 */
export class ShiftedRows {
  readonly shift: Tensor<'f32'>
  readonly sum: PairSum
  readonly #dimension: number

  /** @param scope owns the vectors. */
  constructor(scope: Scope, dimension: number) {
    this.#dimension = dimension
    this.shift = scope.filled('f32', [wideColumns(dimension)], 0, 'shift')
    this.sum = pairSum(scope, wideColumns(dimension), 'sum')
  }

  /**
   * Checks a batch and makes its rows as long as vec4 loads need; sets the shift when it is the first.
   * @throws RangeError when the batch does not fit.
   */
  begin(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, count: number, first: boolean) {
    const { rows, columns } = rowsAndColumns(x.shape)
    const fault = (reason: string) => new RangeError(`Cannot update a PCA with x ${showShape(x.shape)}: ${reason}`)
    if (columns !== this.#dimension) throw fault(`its dimension is ${this.#dimension}`)
    if (weights.size !== rows) throw fault(`weights must have ${rows} elements, got ${showShape(weights.shape)}`)
    if (!Number.isInteger(count) || count < 0 || count > rows)
      throw fault(`count says how many weights are 1, 0 to ${rows}, got ${count}`)
    const batch = { x: widenRows(step, x), weights: step.reshape(weights, [rows]) }
    if (first) {
      const sum = pairSum(step, this.shift.size, 'first')
      addColumnSums(step, sum, batch.x, batch.weights, this.shift)
      accumulate(step, this.shift, scale(step, sum.hi, 1 / count))
    }
    return batch
  }
}
