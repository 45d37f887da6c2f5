// Maps of elements, and work on rows.
import { type Array64, eachRow, rowsOf, zeros } from './array64.ts'

/** SiLU: v · sigmoid(v). */
export function silu64(v: number): number {
  return v / (1 + Math.exp(-v))
}

/** GELU in its tanh form. */
export function gelu64(v: number): number {
  return (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))
}

/** exp(x) / Σ exp(x) of each row. */
export function softmax64(x: Array64): Array64 {
  const y = zeros(...x.shape)
  const results = rowsOf(y)
  for (const [r, row] of rowsOf(x).entries()) {
    const total = logSumExp(row)
    for (let c = 0; c < row.length; c++) results[r][c] = Math.exp(row[c] - total)
  }
  return y
}

/** log Σ exp(x). */
export function logSumExp(row: Float64Array): number {
  const most = row.reduce((a, b) => Math.max(a, b))
  return most + Math.log(row.reduce((all, value) => all + Math.exp(value - most), 0))
}

/** x / √(mean(x²) + eps) · weight of each row. */
export function rmsNorm64(x: Array64, weight: Array64, eps: number): Array64 {
  const y = zeros(...x.shape)
  const results = rowsOf(y)
  for (const [r, row] of rowsOf(x).entries()) {
    const squares = row.reduce((all, value) => all + value * value, 0)
    const factor = 1 / Math.sqrt(squares / row.length + eps)
    for (let c = 0; c < row.length; c++) results[r][c] = row[c] * factor * weight.data[c]
  }
  return y
}

/** The sum of each row. */
export function rowSum64(x: Array64): Array64 {
  return eachRow(x, (row) => row.reduce((a, b) => a + b, 0))
}

/** The sum of all: (1). */
export function total64(x: Array64): Array64 {
  return { shape: [1], data: Float64Array.of(x.data.reduce((a, b) => a + b, 0)) }
}

/** Rows of a table by their number: (ids…, columns). */
export function embedding64(
  table: Array64,
  ids: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
) {
  const columns = table.shape[1]
  const y = zeros(...ids.shape, columns)
  for (let i = 0; i < ids.data.length; i++)
    y.data.set(table.data.subarray(ids.data[i] * columns, (ids.data[i] + 1) * columns), i * columns)
  return y
}

/** Some elements of each row: x (rows, columns) at ids (rows, k). */
export function gather64(x: Array64, ids: ArrayLike<number>, k: number): Array64 {
  const [rows, columns] = x.shape
  const y = zeros(rows, k)
  for (let i = 0; i < y.data.length; i++) y.data[i] = x.data[Math.floor(i / k) * columns + ids[i]]
  return y
}
