import type { Rows } from './references.ts'

const mostRows = 64

/**
 * How far a result is from its reference: the largest error over the largest magnitude of the reference, looked at in
 * up to 64 rows spread over the result, the first and the last among them.
 * @returns Infinity when the size is wrong or something is not a number.
 */
export function errorOf(got: ArrayLike<number>, reference: Rows, size: number): number {
  if (got.length !== size) return Number.POSITIVE_INFINITY
  const columns = reference(0).length
  const rows = size / columns
  const looked = Math.min(rows, mostRows)
  let [error, largest] = [0, 0]
  for (let i = 0; i < looked; i++) {
    const row = looked === 1 ? 0 : Math.round((i * (rows - 1)) / (looked - 1))
    for (const [column, want] of reference(row).entries()) {
      const off = Math.abs(got[row * columns + column] - want)
      if (!(off <= error)) error = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off
      largest = Math.max(largest, Math.abs(want))
    }
  }
  return error / largest
}
