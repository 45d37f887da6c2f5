// Attention, its positions and its relations.
import { type Array64, zeros } from './array64.ts'

/**
 * Attention in plain f64 loops.
 * @param q (B, T, H, D); k and v (B, S, G, D).
 * @param seen whether query `t` of batch entry `b` sees key `j`; a query that sees none gives zeros.
 * @param scale factor of the scores; 1/√D unless told.
 */
export function attentionOracle(
  q: Array64,
  k: Array64,
  v: Array64,
  seen: (b: number, t: number, j: number) => boolean,
  scale?: number,
): Array64 {
  const [batch, tokens, heads, size] = q.shape
  const [, keys, groups] = k.shape
  const y = zeros(...q.shape)
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < tokens; t++) {
        const from = ((b * tokens + t) * heads + h) * size
        const other = (j: number) => ((b * keys + j) * groups + Math.floor((h * groups) / heads)) * size
        const visible = Array.from({ length: keys }, (_, j) => j).filter((j) => seen(b, t, j))
        const scores = visible.map((j) => {
          let score = 0
          const at = other(j)
          for (let d = 0; d < size; d++) score += q.data[from + d] * k.data[at + d]
          return score * (scale ?? size ** -0.5)
        })
        const largest = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - largest))
        const total = weights.reduce((all, weight) => all + weight, 0)
        for (const [i, j] of visible.entries()) {
          const [at, weight] = [other(j), weights[i] / total]
          for (let d = 0; d < size; d++) y.data[from + d] += weight * v.data[at + d]
        }
      }
  return y
}

/** What query `t` of `tokens` sees of `keys`, whose last is its own at the last token: itself and `window` − 1 before. */
export function causal(tokens: number, keys: number, window = Number.POSITIVE_INFINITY) {
  const before = keys - tokens
  return (_: number, t: number, j: number) => j <= t + before && j > t + before - window
}

/** A cache of pages that lie in order, (pages, size, G, D), as the keys of `batch` rows. */
export function unpaged({ shape, data }: Array64, batch: number): Array64 {
  const [pages, size, groups, width] = shape
  return { shape: [batch, (pages / batch) * size, groups, width], data }
}

/** KL between the relations of teacher and student: softmax over scores of tokens with one another, per head. */
export function relationKl64(
  student: Array64,
  teacher: Array64,
  options: {
    readonly heads?: number
    readonly causal?: boolean
    readonly scale?: number
    readonly teacherScale?: number
  } = {},
): Array64 {
  const { heads = 1, causal = false } = options
  const [batch, tokens] = student.shape
  const y = zeros(batch, heads, tokens)
  const logsOf = ({ shape, data }: Array64, b: number, h: number, t: number, factor?: number) => {
    const size = shape[2] / heads
    const at = (i: number) => (b * tokens + i) * shape[2] + h * size
    const mine = at(t)
    const scores = Array.from({ length: causal ? t + 1 : tokens }, (_, j) => {
      let score = 0
      const theirs = at(j)
      for (let d = 0; d < size; d++) score += data[mine + d] * data[theirs + d]
      return score * (factor ?? size ** -0.5)
    })
    const most = Math.max(...scores)
    const lse = most + Math.log(scores.reduce((all, score) => all + Math.exp(score - most), 0))
    return scores.map((score) => score - lse)
  }
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < tokens; t++) {
        const s = logsOf(student, b, h, t, options.scale)
        const q = logsOf(teacher, b, h, t, options.teacherScale)
        y.data[(b * heads + h) * tokens + t] = q.reduce((all, log, j) => all + Math.exp(log) * (log - s[j]), 0)
      }
  return y
}

/**
 * Pair (i, i + turned/2) of every head turned by position · frequencies[i]; the numbers behind `turned` stay.
 * @param x (B, T, H, D).
 * @param frequencies turned / 2 of them.
 * @param positionOf the position of token `t` of row `b`; t unless told.
 */
export function rope64(
  x: Array64,
  frequencies: ArrayLike<number>,
  positionOf: (b: number, t: number) => number = (_, t) => t,
  factor = 1,
): Array64 {
  const [, tokens, heads, size] = x.shape
  const half = frequencies.length
  const y = zeros(...x.shape)
  for (let i = 0; i < x.data.length; i++) {
    const d = i % size
    if (d >= 2 * half) {
      y.data[i] = x.data[i]
      continue
    }
    const token = Math.floor(i / size / heads)
    const angle = positionOf(Math.floor(token / tokens), token % tokens) * frequencies[d % half]
    const partner = d < half ? -x.data[i + half] : x.data[i - half]
    y.data[i] = factor * (x.data[i] * Math.cos(angle) + partner * Math.sin(angle))
  }
  return y
}
