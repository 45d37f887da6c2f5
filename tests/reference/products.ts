// Dense products and low-rank updates, as their formulas say.
import { type Array64, mapped, zeros } from './array64.ts'

/** (rows, k) of a matrix of a batch with its sums along the last dimension. */
function laidOut(x: Array64, batch: number, transposed: boolean): Float64Array {
  const [r, c] = x.shape.slice(-2)
  const part = x.data.subarray(batch * r * c, (batch + 1) * r * c)
  if (!transposed) return part
  const turned = new Float64Array(r * c)
  for (let i = 0; i < r; i++) for (let j = 0; j < c; j++) turned[j * r + i] = part[i * c + j]
  return turned
}

/** Σ a[from + i] · b[other + i]; four sums side by side, because one waits for itself. */
function dot(a: Float64Array, from: number, b: Float64Array, other: number, length: number): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0]
  let i = 0
  for (; i + 3 < length; i += 4) {
    s0 += a[from + i] * b[other + i]
    s1 += a[from + i + 1] * b[other + i + 1]
    s2 += a[from + i + 2] * b[other + i + 2]
    s3 += a[from + i + 3] * b[other + i + 3]
  }
  for (; i < length; i++) s0 += a[from + i] * b[other + i]
  return s0 + s1 + (s2 + s3)
}

/** a · b for each matrix of a batch, either one transposed; a `b` without batch serves all. */
export function product(a: Array64, b: Array64, transposeA = false, transposeB = false): Array64 {
  const [aRows, aColumns] = a.shape.slice(-2)
  const [bRows, bColumns] = b.shape.slice(-2)
  const [m, k] = transposeA ? [aColumns, aRows] : [aRows, aColumns]
  const n = transposeB ? bRows : bColumns
  const y = zeros(...a.shape.slice(0, -2), m, n)
  let right = laidOut(b, 0, !transposeB)
  for (let batch = 0; batch < y.data.length / (m * n); batch++) {
    const left = laidOut(a, batch, transposeA)
    if (batch > 0 && b.shape.length > 2) right = laidOut(b, batch, !transposeB)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) y.data[(batch * m + i) * n + j] = dot(left, i * k, right, j * k, k)
  }
  return y
}

/** x · weightᵀ for x (…, K) and weight (N, K). */
export function layer(x: Array64, weight: Array64): Array64 {
  const [n, k] = weight.shape
  const { data } = product({ shape: [x.data.length / k, k], data: x.data }, weight, false, true)
  return { shape: [...x.shape.slice(0, -1), n], data }
}

/** a + b, a bias `b` repeated. */
export function sum64(a: Array64, b: Array64): Array64 {
  return mapped((left, right) => left + right, a, b)
}

/** base + scale · x · aᵀ · bᵀ: a low-rank update. */
export function withUpdate(base: Array64, x: Array64, a: Array64, b: Array64, scale: number): Array64 {
  const update = layer(layer(x, a), b)
  return mapped((left, right) => left + scale * right, base, update)
}

/**
 * base + factors[id] · x · a[id]ᵀ · b[id]ᵀ, `span` rows an id; an id past the last adapter has none.
 * @param stack `a` (count, rank, K), `b` (count, N, rank).
 */
export function withUpdates(
  base: Array64,
  x: Array64,
  stack: { readonly a: Array64; readonly b: Array64; readonly factors: ArrayLike<number> },
  ids: ArrayLike<number>,
  span = 1,
): Array64 {
  const [count, rank, k] = stack.a.shape
  const n = stack.b.shape[1]
  const y = { shape: base.shape, data: base.data.slice() }
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] >= count) continue
    const part = ({ data }: Array64, width: number, rows: number, at: number): Array64 => ({
      shape: [rows, width],
      data: data.subarray(at * rows * width, (at + 1) * rows * width),
    })
    const [a, b] = [part(stack.a, k, rank, ids[i]), part(stack.b, rank, n, ids[i])]
    const updated = withUpdate(part(y, n, span, i), part(x, k, span, i), a, b, stack.factors[ids[i]])
    y.data.set(updated.data, i * span * n)
  }
  return y
}
