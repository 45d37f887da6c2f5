import type { FloatType } from '../core/dtype.ts'
import { addColumnSums, addScatter, pairSum, triangleSize, unpackTriangle, wideColumns } from '../kernels/scatter.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { PcaState } from './pca-state.ts'
import { ShiftedRows } from './shifted-rows.ts'
import { type PcaSnapshot, pairOf, putSnapshot, takeSnapshot } from './snapshot.ts'

/** Most columns whose covariance is kept whole. */
export const mostCovarianceColumns = 4096

/** Bytes of GPU memory that the covariance of `dimension` columns takes between updates. */
export function covarianceBytes(dimension: number): number {
  return 8 * triangleSize(dimension)
}

/**
 * Collects the exact covariance of a stream: one product xᵀ·x an update, of which only the upper triangle is made, in
 * short f32 sums that are added up in pairs of floats. Batches in any order give the same state to about 1e-8.
 */
export class ShiftedCovariance implements Disposable {
  readonly dimension: number
  readonly #scope: Scope
  readonly #rows: ShiftedRows
  readonly #scatter: ReturnType<typeof pairSum>
  #count = 0

  /** @param dimension d, at most 4,096. */
  constructor(gpu: Gpu, dimension: number) {
    if (!Number.isInteger(dimension) || dimension < 1 || dimension > mostCovarianceColumns)
      throw new RangeError(
        `Cannot collect a covariance of dimension ${dimension}: it must be 1 to 4,096; Frequent Directions takes more`,
      )
    this.dimension = dimension
    this.#scope = gpu.scope('covariance')
    this.#rows = new ShiftedRows(this.#scope, dimension)
    this.#scatter = pairSum(this.#scope, triangleSize(wideColumns(dimension)), 'scatter')
  }

  /** Rows seen so far. */
  get count(): number {
    return this.#count
  }

  /** Takes in the rows of `x` (…, d) whose weight is 1; `count` of them. */
  update(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, count: number): void {
    if (count === 0) return
    step.withoutGradients(() => {
      const { x: rows, weights: column } = this.#rows.begin(step, x, weights, count, this.#count === 0)
      addColumnSums(step, this.#rows.sum, rows, column, this.#rows.shift)
      addScatter(step, this.#scatter, rows, column, this.#rows.shift)
    })
    this.#count += count
  }

  get #held() {
    const { shift, sum } = this.#rows
    const { hi, lo } = this.#scatter
    return { shift, 'sum.hi': sum.hi, 'sum.lo': sum.lo, 'scatter.hi': hi, 'scatter.lo': lo }
  }

  /** What was collected so far, in f64 on the host. */
  async state(): Promise<PcaState> {
    return covarianceState(this.dimension, await this.snapshot())
  }

  /** Numbers that a snapshot has beside its tensors. */
  get counters(): PcaSnapshot['counters'] {
    return { count: this.#count }
  }

  /** Elements of each tensor of a snapshot. */
  get sizes(): Readonly<Record<string, number>> {
    return Object.fromEntries(Object.entries(this.#held).map(([name, { size }]) => [name, size]))
  }

  /** What lies on the GPU. */
  snapshot(): Promise<PcaSnapshot> {
    return takeSnapshot(this.#scope.gpu, this.#held, this.counters)
  }

  /** Goes on from a snapshot, to the last bit. */
  restore(snapshot: PcaSnapshot): void {
    putSnapshot(this.#scope.gpu, this.#held, snapshot)
    this.#count = snapshot.counters.count
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}

/** The state that a snapshot stands for, in f64. */
export function covarianceState(d: number, snapshot: PcaSnapshot): PcaState {
  const n = snapshot.counters.count
  const shift = snapshot.tensors.get('shift')!
  const sum = pairOf(snapshot, 'sum')
  const scatter = unpackTriangle(d, snapshot.tensors.get('scatter.hi')!, snapshot.tensors.get('scatter.lo')!)
  const offset = Float64Array.from({ length: d }, (_, i) => (n === 0 ? 0 : sum[i] / n))
  for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) scatter[i * d + j] -= n * offset[i] * offset[j]
  return { count: n, mean: offset.map((value, i) => value + shift[i]), scatter }
}
