import type { Array64 } from '../tests/reference/array64.ts'

/**
 * The largest error of `got` over the largest magnitude of `want`.
 * @returns Infinity when the size is wrong or something is not a number.
 */
export function errorOf(got: ArrayLike<number>, { data: want }: Pick<Array64, 'data'>): number {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY
  let [error, largest] = [0, 0]
  for (let i = 0; i < want.length; i++) {
    const off = Math.abs(got[i] - want[i])
    if (!(off <= error)) error = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off
    largest = Math.max(largest, Math.abs(want[i]))
  }
  return error === 0 ? 0 : error / largest
}
