/** Eigenvalues of a symmetric matrix, and its eigenvectors when they are asked for. */
export interface Eigensystem {
  /** f64 (n), largest first. */
  readonly values: Float64Array
  /** f64 (k, n): a row for each of the k largest eigenvalues; k is `count`, or n if that is less. */
  vectors(count: number): Float64Array
}

/**
 * All eigenvalues of a symmetric matrix and the eigenvectors of the largest few, in f64: 4/3 n³ operations for the values
 * and 2 n² a vector, where a full decomposition takes about 9 n³.
 * @param matrix f64 (n, n), of which the lower triangle is read; it is not changed.
 * @throws RangeError when an entry is not finite.
 * @see Golub and Van Loan, Matrix Computations, 2013, 8.3; Peters and Wilkinson, The Calculation of Specified Eigenvectors
 *   by Inverse Iteration, 1971.
 */
export function eigensystem(matrix: Float64Array, n: number): Eigensystem {
  if (matrix.length !== n * n) throw new RangeError(`Cannot decompose ${matrix.length} values as ${n} × ${n}`)
  const { diagonal, beside, reflectors } = tridiagonalise(matrix, n)
  const values = tridiagonalValues(diagonal, beside).sort().reverse()
  // The tridiagonal matrix's eigenvectors and the matrix's own, as far as they were asked for.
  let inner = new Float64Array(0)
  let found = new Float64Array(0)
  return {
    values,
    vectors(count) {
      const k = Math.min(count, n)
      if (k * n > found.length) {
        inner = tridiagonalVectors(diagonal, beside, values.subarray(0, k), inner)
        const more = inner.slice(found.length)
        reflect(more, reflectors, n)
        const both = new Float64Array(k * n)
        both.set(found)
        both.set(more, found.length)
        found = both
      }
      return found.slice(0, k * n)
    },
  }
}

/**
 * Householder's reduction. The update of a step and the product with the next reflector's vector share one walk through
 * the triangle, since both are bound by memory.
 */
function tridiagonalise(matrix: Float64Array, n: number) {
  const a = Float64Array.from(matrix)
  const diagonal = new Float64Array(n)
  const beside = new Float64Array(Math.max(0, n - 1))
  // Row k holds the vector of reflector k, scaled so that it is I − v vᵀ.
  const reflectors = new Float64Array(Math.max(0, n - 1) * n)
  let v = new Float64Array(n)
  let w = new Float64Array(n)
  let v2 = new Float64Array(n)
  let product = new Float64Array(n)
  for (let k = 0; k < n; k++) {
    // Column k with the update that is still due; v and w are zero before the first.
    for (let i = k; i < n; i++) a[i * n + k] -= v[i] * w[k] + w[i] * v[k]
    diagonal[k] = a[k * n + k]
    if (!Number.isFinite(diagonal[k]))
      throw new RangeError('Cannot decompose a matrix with entries that are not finite')
    if (k === n - 1) break
    // Entries are divided by the largest, so that no square is too large or too small.
    let most = 0
    for (let i = k + 1; i < n; i++) most = Math.max(most, Math.abs(a[i * n + k]))
    let norm = 0
    for (let i = k + 1; i < n && most > 0; i++) norm += (a[i * n + k] / most) ** 2
    norm = most * Math.sqrt(norm)
    const first = a[(k + 1) * n + k]
    const alpha = first > 0 ? -norm : norm
    beside[k] = alpha
    v2.fill(0)
    if (norm > 0) {
      const scale = 1 / Math.sqrt(norm * (norm + Math.abs(first)))
      for (let i = k + 1; i < n; i++) v2[i] = a[i * n + k] * scale
      v2[k + 1] = (first - alpha) * scale
    }
    reflectors.set(v2, k * n)
    product.fill(0)
    let i = k + 1
    // Two rows at a time share what is read of v, w, v2 and product.
    for (; i + 1 < n; i += 2) {
      const [row, row2] = [i * n, i * n + n]
      const [vi, wi, xi] = [v[i], w[i], v2[i]]
      const [vi2, wi2, xi2] = [v[i + 1], w[i + 1], v2[i + 1]]
      let [sum, sum2] = [0, 0]
      for (let j = k + 1; j < i; j++) {
        const vj = v[j]
        const wj = w[j]
        const xj = v2[j]
        const value = a[row + j] - vi * wj - wi * vj
        const value2 = a[row2 + j] - vi2 * wj - wi2 * vj
        a[row + j] = value
        a[row2 + j] = value2
        sum += value * xj
        sum2 += value2 * xj
        product[j] += value * xi + value2 * xi2
      }
      const own = a[row + i] - 2 * vi * wi
      const between = a[row2 + i] - vi2 * wi - wi2 * vi
      const own2 = a[row2 + i + 1] - 2 * vi2 * wi2
      a[row + i] = own
      a[row2 + i] = between
      a[row2 + i + 1] = own2
      product[i] += sum + own * xi + between * xi2
      product[i + 1] += sum2 + between * xi + own2 * xi2
    }
    if (i < n) {
      const row = i * n
      const [vi, wi, xi] = [v[i], w[i], v2[i]]
      let sum = 0
      for (let j = k + 1; j < i; j++) {
        const value = a[row + j] - vi * w[j] - wi * v[j]
        a[row + j] = value
        sum += value * v2[j]
        product[j] += value * xi
      }
      const own = a[row + i] - 2 * vi * wi
      a[row + i] = own
      product[i] += sum + own * xi
    }
    let dot = 0
    for (let i = k + 1; i < n; i++) dot += product[i] * v2[i]
    for (let i = k + 1; i < n; i++) product[i] -= (dot / 2) * v2[i]
    ;[v, v2] = [v2, v]
    ;[w, product] = [product, w]
  }
  return { diagonal, beside, reflectors }
}

const mostIterations = 60

/** Eigenvalues of a symmetric tridiagonal matrix, in no order: implicit QL. */
function tridiagonalValues(diagonal: Float64Array, beside: Float64Array): Float64Array {
  const n = diagonal.length
  const d = Float64Array.from(diagonal)
  const e = new Float64Array(n)
  e.set(beside)
  let norm = 0
  for (let i = 0; i < n; i++) norm = Math.max(norm, Math.abs(d[i]) + Math.abs(e[i]))
  // Between two eigenvalues of zero nothing is small by comparison: what counts is the size of the whole.
  const small = Number.EPSILON * norm
  for (let l = 0; l < n; l++)
    for (let iteration = 0; ; iteration++) {
      let m = l
      while (m < n - 1 && Math.abs(e[m]) > Number.EPSILON * (Math.abs(d[m]) + Math.abs(d[m + 1])) + small) m++
      if (m === l) break
      if (iteration === mostIterations) throw new RangeError('Cannot find the eigenvalues: the iteration does not end')
      let g = (d[l + 1] - d[l]) / (2 * e[l])
      let r = Math.hypot(g, 1)
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r))
      let [s, c, p] = [1, 1, 0]
      let i = m - 1
      for (; i >= l; i--) {
        const f = s * e[i]
        const b = c * e[i]
        r = Math.sqrt(f * f + g * g)
        e[i + 1] = r
        if (r === 0) {
          d[i + 1] -= p
          e[m] = 0
          break
        }
        s = f / r
        c = g / r
        g = d[i + 1] - p
        r = (d[i] - g) * s + 2 * c * b
        p = s * r
        d[i + 1] = g + p
        g = c * r - b
      }
      if (r === 0 && i >= l) continue
      d[l] -= p
      e[l] = g
      e[m] = 0
    }
  return d
}

/**
 * Eigenvectors of a tridiagonal matrix as rows, by inverse iteration; those of near eigenvalues are kept orthogonal.
 * @param before the first rows, where they were found earlier.
 */
function tridiagonalVectors(
  diagonal: Float64Array,
  beside: Float64Array,
  values: Float64Array,
  before: Float64Array,
): Float64Array<ArrayBuffer> {
  const n = diagonal.length
  const vectors = new Float64Array(values.length * n)
  vectors.set(before)
  let norm = 0
  for (let i = 0; i < n; i++)
    norm = Math.max(norm, Math.abs(diagonal[i]) + Math.abs(beside[i] ?? 0) + Math.abs(beside[i - 1] ?? 0))
  const near = 1e-3 * norm
  const apart = 4 * Number.EPSILON * norm
  let begin = 0
  let shift = Number.POSITIVE_INFINITY
  for (const [k, value] of values.entries()) {
    if (k > 0 && values[k - 1] - value > near) begin = k
    // Equal shifts would give equal vectors.
    shift = Math.min(value, shift - apart)
    if (k * n < before.length) continue
    const solve = factorise(diagonal, beside, shift, Math.max(apart, Number.MIN_VALUE))
    const x = vectors.subarray(k * n, (k + 1) * n)
    // A start that is no one's eigenvector, the same every time.
    for (let i = 0; i < n; i++) x[i] = 1 + ((i * 2654435761 + k * 40503) % 1000) / 1000
    for (let round = 0; round < 3; round++) {
      solve(x)
      normalise(x)
      for (let other = begin; other < k; other++) {
        const y = vectors.subarray(other * n, (other + 1) * n)
        const dot = dotOf(x, y)
        for (let i = 0; i < n; i++) x[i] -= dot * y[i]
      }
      normalise(x)
    }
  }
  return vectors
}

/** A solver of (T − shift) x = b by elimination with pivots; it writes over b. */
function factorise(diagonal: Float64Array, beside: Float64Array, shift: number, tiny: number) {
  const n = diagonal.length
  const [u, u1, u2] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)]
  const factor = new Float64Array(n)
  const swapped = new Uint8Array(n)
  let [a, b] = [diagonal[0] - shift, beside[0] ?? 0]
  for (let i = 0; i + 1 < n; i++) {
    const [below, next, after] = [beside[i], diagonal[i + 1] - shift, beside[i + 1] ?? 0]
    if (Math.abs(below) > Math.abs(a)) {
      swapped[i] = 1
      factor[i] = a / below
      u[i] = below
      u1[i] = next
      u2[i] = after
      a = b - factor[i] * next
      b = -factor[i] * after
    } else {
      u[i] = a === 0 ? tiny : a
      u1[i] = b
      factor[i] = below / u[i]
      a = next - factor[i] * b
      b = after
    }
  }
  u[n - 1] = a === 0 ? tiny : a
  return (x: Float64Array) => {
    for (let i = 0; i + 1 < n; i++) {
      if (swapped[i] === 1) {
        const kept = x[i]
        x[i] = x[i + 1]
        x[i + 1] = kept
      }
      x[i + 1] -= factor[i] * x[i]
    }
    for (let i = n - 1; i >= 0; i--)
      x[i] = (x[i] - (i + 1 < n ? u1[i] * x[i + 1] : 0) - (i + 2 < n ? u2[i] * x[i + 2] : 0)) / u[i]
    // A nearly singular system answers with huge numbers; only their direction counts.
    let most = 0
    for (let i = 0; i < n; i++) most = Math.max(most, Math.abs(x[i]))
    if (most > 0 && Number.isFinite(most)) for (let i = 0; i < n; i++) x[i] /= most
  }
}

/** Four sums at a time: one alone would wait for each of its additions. */
function dotOf(x: Float64Array, y: Float64Array): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0]
  let i = 0
  for (; i + 4 <= x.length; i += 4) {
    s0 += x[i] * y[i]
    s1 += x[i + 1] * y[i + 1]
    s2 += x[i + 2] * y[i + 2]
    s3 += x[i + 3] * y[i + 3]
  }
  for (; i < x.length; i++) s0 += x[i] * y[i]
  return s0 + s1 + (s2 + s3)
}

function normalise(x: Float64Array): void {
  const scale = 1 / Math.sqrt(dotOf(x, x))
  for (let i = 0; i < x.length; i++) x[i] *= scale
}

/** Vectors that share one walk through the reflectors, which are bound by memory. */
const together = 16

/** From the tridiagonal matrix's eigenvectors (k, n) to the matrix's own, in place. */
function reflect(vectors: Float64Array, reflectors: Float64Array, n: number): void {
  for (let begin = 0; begin < vectors.length; begin += together * n) {
    const end = Math.min(begin + together * n, vectors.length)
    for (let k = n - 2; k >= 0; k--) {
      const row = k * n
      let x = begin
      for (; x + 4 * n <= end; x += 4 * n) {
        const [x1, x2, x3] = [x + n, x + 2 * n, x + 3 * n]
        let [s0, s1, s2, s3] = [0, 0, 0, 0]
        for (let i = k + 1; i < n; i++) {
          const v = reflectors[row + i]
          s0 += v * vectors[x + i]
          s1 += v * vectors[x1 + i]
          s2 += v * vectors[x2 + i]
          s3 += v * vectors[x3 + i]
        }
        for (let i = k + 1; i < n; i++) {
          const v = reflectors[row + i]
          vectors[x + i] -= s0 * v
          vectors[x1 + i] -= s1 * v
          vectors[x2 + i] -= s2 * v
          vectors[x3 + i] -= s3 * v
        }
      }
      for (; x < end; x += n) {
        let dot = 0
        for (let i = k + 1; i < n; i++) dot += reflectors[row + i] * vectors[x + i]
        for (let i = k + 1; i < n; i++) vectors[x + i] -= dot * reflectors[row + i]
      }
    }
  }
}

/** What is left of the largest diagonal entry when only rounding is left, for up to some thousand rows. */
const rounding = 1e-12

/**
 * Rows F, at most n, with FᵀF = matrix: Cholesky's factor with the largest pivot first, which ends where only rounding is
 * left. Without pivots a matrix of lower rank would be divided by its own rounding.
 * @param matrix f64 (n, n), symmetric and positive semidefinite.
 * @see Higham, Analysis of the Cholesky Decomposition of a Semi-Definite Matrix, 1990.
 */
export function factorRows(matrix: Float64Array, n: number): Float64Array {
  const rows = new Float64Array(n * n)
  // Columns in another order: pivots first, in which later rows are zero.
  const order = Uint32Array.from({ length: n }, (_, i) => i)
  const left = Float64Array.from({ length: n }, (_, i) => matrix[i * n + i])
  const end = rounding * left.reduce((most, value) => Math.max(most, value), 0)
  let count = 0
  for (; count < n; count++) {
    let at = count
    for (let i = at + 1; i < n; i++) if (left[i] > left[at]) at = i
    if (!(left[at] > end)) break
    const pivot = order[at]
    order[at] = order[count]
    order[count] = pivot
    const diagonal = left[at]
    left[at] = left[count]
    for (let k = 0; k < count; k++) {
      const value = rows[k * n + at]
      rows[k * n + at] = rows[k * n + count]
      rows[k * n + count] = value
    }
    const own = rows.subarray(count * n, (count + 1) * n)
    for (let i = count; i < n; i++) own[i] = matrix[pivot * n + order[i]]
    let k = 0
    // Four rows at a time: one walk through `own` for all of them.
    for (; k + 4 <= count; k += 4) {
      const [r0, r1, r2, r3] = [k * n, (k + 1) * n, (k + 2) * n, (k + 3) * n]
      const [f0, f1, f2, f3] = [rows[r0 + count], rows[r1 + count], rows[r2 + count], rows[r3 + count]]
      for (let i = count; i < n; i++)
        own[i] = own[i] - f0 * rows[r0 + i] - f1 * rows[r1 + i] - f2 * rows[r2 + i] - f3 * rows[r3 + i]
    }
    for (; k < count; k++) {
      const factor = rows[k * n + count]
      for (let i = count; i < n; i++) own[i] -= factor * rows[k * n + i]
    }
    const scale = 1 / Math.sqrt(diagonal)
    for (let i = count; i < n; i++) {
      own[i] *= scale
      left[i] -= own[i] * own[i]
    }
  }
  const sorted = new Float64Array(count * n)
  for (let k = 0; k < count; k++) for (let i = k; i < n; i++) sorted[k * n + order[i]] = rows[k * n + i]
  return sorted
}
