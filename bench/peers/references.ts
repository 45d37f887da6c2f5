// What the peers' cases should give, in plain f64 loops: a function from the number of a row to that row of the
// result, so that of a large result only some rows need be made.
import type { Inputs } from './cases.ts'

/** Makes one row of a result seen as (rows, columns). */
export type Rows = (row: number) => Float64Array

/** a · b, or a · bᵀ, for each matrix of a batch. */
export function matmulRows(a: Inputs[string], b: Inputs[string], transposeB: boolean): Rows {
  const [m, k] = a.shape.slice(-2)
  const n = transposeB ? b.shape.at(-2)! : b.shape.at(-1)!
  return (row) => {
    const begin = Math.floor(row / m) * k * n
    return Float64Array.from({ length: n }, (_, j) => {
      let sum = 0
      for (let i = 0; i < k; i++) sum += a.data[row * k + i] * b.data[begin + (transposeB ? j * k + i : i * n + j)]
      return sum
    })
  }
}

/** softmax(q · kᵀ / √D) · v; a row is all heads of one token. */
export function attentionRows({ q, k, v }: Inputs, causal: boolean): Rows {
  const [, tokens, heads, size] = q.shape
  const [, keys, groups] = k.shape
  return (row) => {
    const [batch, token] = [Math.floor(row / tokens), row % tokens]
    const seen = causal ? keys - tokens + token + 1 : keys
    const y = new Float64Array(heads * size)
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads)
      const at = (key: number) => ((batch * keys + key) * groups + group) * size
      const scores = softmaxOf(
        Float64Array.from({ length: seen }, (_, key) => {
          let score = 0
          for (let d = 0; d < size; d++) score += q.data[(row * heads + head) * size + d] * k.data[at(key) + d]
          return score / Math.sqrt(size)
        }),
      )
      for (let key = 0; key < seen; key++)
        for (let d = 0; d < size; d++) y[head * size + d] += scores[key] * v.data[at(key) + d]
    }
    return y
  }
}

/** A function of the elements of inputs that all have the same shape. */
export function elementRows(f: (...values: number[]) => number, ...inputs: Inputs[string][]): Rows {
  const columns = inputs[0].shape.at(-1)!
  return (row) =>
    Float64Array.from({ length: columns }, (_, i) => f(...inputs.map(({ data }) => data[row * columns + i])))
}

/** A function of whole rows of `x`. */
export function rowRows(x: Inputs[string], f: (values: Float64Array, row: number) => Float64Array): Rows {
  const columns = x.shape.at(-1)!
  return (row) => f(Float64Array.from(x.data.subarray(row * columns, (row + 1) * columns)), row)
}

/** exp(x) / Σ exp(x). */
export function softmaxOf(values: Float64Array): Float64Array {
  const most = values.reduce((a, b) => Math.max(a, b))
  const powers = values.map((value) => Math.exp(value - most))
  const total = powers.reduce((a, b) => a + b)
  return powers.map((power) => power / total)
}

/** log Σ exp(x). */
export function logSumExp(values: Float64Array): number {
  const most = values.reduce((a, b) => Math.max(a, b))
  return most + Math.log(values.reduce((total, value) => total + Math.exp(value - most), 0))
}

/** x / √(mean(x²) + eps) · weight. */
export function rmsNormRows({ x, weight }: Inputs, eps: number): Rows {
  return rowRows(x, (values) => {
    const mean = values.reduce((total, value) => total + value * value, 0) / values.length
    return values.map((value, i) => (value / Math.sqrt(mean + eps)) * weight.data[i])
  })
}

/** Pair (i, i + D/2) of every head turned by position · 10000^(−2i/D); a row is one head of one token. */
export function ropeRows(x: Inputs[string]): Rows {
  const [, tokens, heads, size] = x.shape
  const half = size / 2
  return rowRows(x, (values, row) => {
    const position = Math.floor(row / heads) % tokens
    return values.map((value, i) => {
      const angle = position * 10_000 ** (-(i % half) / half)
      const other = i < half ? -values[i + half] : values[i - half]
      return value * Math.cos(angle) + other * Math.sin(angle)
    })
  })
}

/** SiLU: x · sigmoid(x). */
export function siluOf(x: number): number {
  return x / (1 + Math.exp(-x))
}

/** GELU in its tanh form. */
export function geluOf(x: number): number {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
}

/** The gradient of A (rank, C) of Σ y², y = down · (silu(gate x + scale · B A x) · up x), made whole at the first row. */
export function loraStepRows({ x, gate, up, down, a, b }: Inputs, scale: number): Rows {
  let gradient: Float64Array | undefined
  const [tokens, width] = x.shape
  const [hidden, rank] = b.shape
  const dot = (left: ArrayLike<number>, row: number, right: ArrayLike<number>, other: number, length: number) => {
    let total = 0
    for (let i = 0; i < length; i++) total += left[row * length + i] * right[other * length + i]
    return total
  }
  const whole = () => {
    const sums = new Float64Array(rank * width)
    for (let t = 0; t < tokens; t++) {
      const thin = Float64Array.from({ length: rank }, (_, r) => dot(x.data, t, a.data, r, width))
      const g = Float64Array.from(
        { length: hidden },
        (_, h) => dot(x.data, t, gate.data, h, width) + scale * dot(b.data, h, thin, 0, rank),
      )
      const u = Float64Array.from({ length: hidden }, (_, h) => dot(x.data, t, up.data, h, width))
      const inside = g.map((value, h) => siluOf(value) * u[h])
      const dinside = new Float64Array(hidden)
      for (let c = 0; c < width; c++) {
        const y = dot(down.data, c, inside, 0, hidden)
        for (let h = 0; h < hidden; h++) dinside[h] += 2 * y * down.data[c * hidden + h]
      }
      for (let r = 0; r < rank; r++) {
        let slope = 0
        for (let h = 0; h < hidden; h++) {
          const sigmoid = 1 / (1 + Math.exp(-g[h]))
          slope += dinside[h] * u[h] * sigmoid * (1 + g[h] * (1 - sigmoid)) * b.data[h * rank + r]
        }
        for (let c = 0; c < width; c++) sums[r * width + c] += scale * slope * x.data[t * width + c]
      }
    }
    return sums
  }
  return (row) => {
    gradient ??= whole()
    return gradient.subarray(row * width, (row + 1) * width)
  }
}
