// f64 of single elements of results that are too large to check whole.
import type { FloatType } from '../../src/core/dtype.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import type { Drawn } from './drawn.ts'

/** The host's side of a drawn matrix. */
export type Known = Pick<Drawn, 'few' | 'ids' | 'row' | 'rows' | 'columns'>

/** Rows where a window may begin, whatever the columns. */
const window = 128

/** A few rows of `count`: the first, the last and one between. */
export function someRows(count: number): number[] {
  return [...new Set([0, Math.floor(count / 3), count - 1])]
}

/** Row `r` of `y`, whose rows are its last dimension unless told. */
export async function readRow(
  step: Step,
  y: Tensor<FloatType>,
  r: number,
  columns = y.shape.at(-1)!,
): Promise<number[]> {
  return (await readRows(step, y, [window * Math.floor(r / window), r + 1], columns)).slice(-columns)
}

/** Rows of `y`, one behind the other; the first is a multiple of 128. */
export async function readRows(
  step: Step,
  y: Tensor<FloatType>,
  [begin, end]: readonly [number, number],
  columns: number,
): Promise<number[]> {
  const flat = step.reshape(y, [y.size / columns, columns])
  return Array.from(await step.read(step.rows(flat, begin, end)))
}

/** Adds up how far single elements are from what they should be, beside the largest of those. */
export class Spot {
  #worst = 0
  #largest = 0

  /** One element. */
  see(made: number, want: number): void {
    const off = Math.abs(made - want)
    this.#worst = Math.max(this.#worst, Number.isFinite(off) ? off : Number.POSITIVE_INFINITY)
    this.#largest = Math.max(this.#largest, Math.abs(want))
  }

  /** One row, all of it. */
  seeAll(made: ArrayLike<number>, want: ArrayLike<number>): void {
    if (made.length !== want.length) throw new RangeError(`Cannot compare ${made.length} elements with ${want.length}`)
    for (let i = 0; i < made.length; i++) this.see(made[i], want[i])
  }

  /** The largest error over the largest magnitude. */
  get error(): number {
    return this.#worst === 0 ? 0 : this.#worst / this.#largest
  }
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

/** Some elements of x (M, K) · weight (N, K)ᵀ. */
export async function spotNT(step: Step, y: Tensor<FloatType>, x: Known, weight: Known): Promise<Spot> {
  const spot = new Spot()
  for (const r of someRows(x.rows)) {
    const made = await readRow(step, y, r)
    const products = weight.few.map((row) => dot(x.row(r), row))
    for (let n = 0; n < weight.rows; n += 7) spot.see(made[n], products[weight.ids[n]])
  }
  return spot
}

/** Some elements of g (M, N) · weight (N, K). */
export async function spotNN(step: Step, y: Tensor<FloatType>, g: Known, weight: Known): Promise<Spot> {
  const spot = new Spot()
  for (const r of someRows(g.rows)) spot.seeAll(await readRow(step, y, r), drawnSum(weight, g.row(r)))
  return spot
}

/** Some elements of g (R, N)ᵀ · x (R, K). */
export async function spotTN(step: Step, y: Tensor<FloatType>, g: Known, x: Known): Promise<Spot> {
  const spot = new Spot()
  for (const n of someRows(g.columns)) {
    const factors = Float64Array.from({ length: g.rows }, (_, r) => g.row(r)[n])
    spot.seeAll(await readRow(step, y, n), drawnSum(x, factors))
  }
  return spot
}

/** Sum over the rows of a drawn matrix, each times its factor. */
export function drawnSum(matrix: Known, factors: ArrayLike<number>): Float64Array {
  const perRow = new Float64Array(matrix.few.length)
  for (const [r, id] of matrix.ids.entries()) perRow[id] += factors[r]
  const sum = new Float64Array(matrix.columns)
  for (const [i, row] of matrix.few.entries())
    if (perRow[i] !== 0) for (let c = 0; c < sum.length; c++) sum[c] += perRow[i] * row[c]
  return sum
}
