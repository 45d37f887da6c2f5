import { type Shape, sizeOf } from '../../src/core/shape.ts'

/** An array of a reference: f64, row-major. */
export interface Array64 {
  readonly shape: Shape
  readonly data: Float64Array
}

/** A fresh array of zeros for a reference's result. */
export function zeros(...shape: number[]): Array64 {
  return { shape, data: new Float64Array(sizeOf(shape)) }
}

/** The rows of an array, which they share: all dimensions but the last are one. */
export function rowsOf({ shape, data }: Array64): Float64Array[] {
  const columns = shape.at(-1)!
  return Array.from({ length: data.length / columns }, (_, r) => data.subarray(r * columns, (r + 1) * columns))
}

/** One number of each row: (…). */
export function eachRow(x: Array64, f: (row: Float64Array, r: number) => number): Array64 {
  return { shape: x.shape.slice(0, -1), data: Float64Array.from(rowsOf(x), f) }
}

/** f(a, b, …) element by element of arrays of the same shape; one that is shorter is repeated, as a bias is. */
export function mapped(f: (...values: number[]) => number, ...inputs: Array64[]): Array64 {
  const y = zeros(...inputs[0].shape)
  const [a, b] = inputs.map(({ data }) => data)
  const period = b?.length
  for (let i = 0; i < y.data.length; i++) y.data[i] = b ? f(a[i], b[i % period]) : f(a[i])
  return y
}
