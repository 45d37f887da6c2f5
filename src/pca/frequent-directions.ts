import type { FloatType } from '../core/dtype.ts'
import { appendJoin, appendRows, mostJacobiRows, shrinkSketch } from '../kernels/frequent-directions.ts'
import { addColumnSums, addPair, type PairSum, pairSum, wideColumns } from '../kernels/scatter.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { ShiftedRows } from './shifted-rows.ts'
import type { PcaSketch } from './sketch.ts'
import { type PcaSnapshot, pairOf, putSnapshot, takeSnapshot } from './snapshot.ts'

/**
 * Frequent Directions over centred rows: a buffer of 2ℓ rows that is shrunk to ℓ whenever it is full, all on the GPU.
 * Every batch is centred about its own mean and followed by the one row that joining it to the others adds to the
 * scatter, so the sketch follows the centred scatter S of all rows:
 * 0 ≤ S − BᵀB ≤ shed ≤ (sum of the eigenvalues of S after the k-th) / (ℓ − k), for every k < ℓ, up to f32 rounding.
 */
export class FrequentDirections implements Disposable {
  readonly dimension: number
  /** ℓ */
  readonly size: number
  readonly #scope: Scope
  readonly #rows: ShiftedRows
  readonly #squares: PairSum
  readonly #buffer: Tensor<'f32'>
  readonly #shed: Tensor<'f32'>
  #filled = 0
  #count = 0

  /**
   * @param dimension d, any.
   * @param size ℓ, rows of the sketch: even, 2 to 128.
   */
  constructor(gpu: Gpu, dimension: number, size: number) {
    if (!Number.isInteger(dimension) || dimension < 1)
      throw new RangeError(`Cannot sketch rows of dimension ${dimension}: it must be a positive integer`)
    if (!Number.isInteger(size) || size % 2 !== 0 || size < 2 || size > mostJacobiRows / 2)
      throw new RangeError(`Cannot keep a sketch of ${size} rows: it must be even, 2 to ${mostJacobiRows / 2}`)
    this.dimension = dimension
    this.size = size
    this.#scope = gpu.scope('sketch')
    this.#rows = new ShiftedRows(this.#scope, dimension)
    this.#squares = pairSum(this.#scope, wideColumns(dimension), 'squares')
    this.#buffer = this.#scope.filled('f32', [2 * size, wideColumns(dimension)], 0, 'buffer')
    this.#shed = this.#scope.filled('f32', [1], 0, 'shed')
  }

  /** Rows seen so far. */
  get count(): number {
    return this.#count
  }

  /** Takes in the rows of `x` (…, d) whose weight is 1; `count` of them. */
  update(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, count: number): void {
    if (count === 0) return
    step.withoutGradients(() => {
      const { shift, sum } = this.#rows
      const rows = this.#rows.begin(step, x, weights, count, this.#count === 0)
      const own = pairSum(step, shift.size, 'batch')
      addColumnSums(step, own, rows.x, rows.weights, shift)
      addColumnSums(step, this.#squares, rows.x, rows.weights, shift, { squared: true })
      const batch = { ...rows, shift, sum: own.hi, count }
      const [all] = rows.x.shape
      for (let from = 0; from < all; ) {
        this.#makeRoom(step)
        const taken = Math.min(all - from, 2 * this.size - this.#filled)
        appendRows(step, this.#buffer, batch, { rows: taken, from, to: this.#filled })
        this.#filled += taken
        from += taken
      }
      if (this.#count > 0) {
        this.#makeRoom(step)
        appendJoin(step, this.#buffer, this.#filled++, batch, { sum: sum.hi, count: this.#count })
      }
      addPair(step, sum, own)
    })
    this.#count += count
  }

  #makeRoom(step: Step): void {
    if (this.#filled < 2 * this.size) return
    shrinkSketch(step, this.#buffer, this.#shed, this.size)
    this.#filled = this.size
  }

  get #held() {
    const { shift, sum } = this.#rows
    const { hi, lo } = this.#squares
    return {
      ...{ shift, 'sum.hi': sum.hi, 'sum.lo': sum.lo, 'squares.hi': hi, 'squares.lo': lo },
      ...{ buffer: this.#buffer, shed: this.#shed },
    }
  }

  /** What was collected so far, in f64 on the host. */
  async state(): Promise<PcaSketch> {
    return sketchState(this.dimension, await this.snapshot())
  }

  /** Numbers that a snapshot has beside its tensors. */
  get counters(): PcaSnapshot['counters'] {
    return { count: this.#count, filled: this.#filled, size: this.size }
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
    this.#filled = snapshot.counters.filled
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}

/** The sketch that a snapshot stands for, in f64: at most 2ℓ rows. */
export function sketchState(d: number, snapshot: PcaSnapshot): PcaSketch {
  const { count: n, filled, size } = snapshot.counters
  const wide = wideColumns(d)
  const [shift, buffer, shed] = ['shift', 'buffer', 'shed'].map((name) => snapshot.tensors.get(name)!)
  const [sum, squares] = [pairOf(snapshot, 'sum'), pairOf(snapshot, 'squares')]
  const offset = Float64Array.from({ length: d }, (_, i) => (n === 0 ? 0 : sum[i] / n))
  return {
    count: n,
    mean: offset.map((value, i) => value + shift[i]),
    size,
    rows: Float64Array.from({ length: filled * d }, (_, i) => buffer[Math.floor(i / d) * wide + (i % d)]),
    diagonal: offset.map((value, i) => Math.max(0, squares[i] - n * value * value)),
    shed: shed[0],
  }
}
