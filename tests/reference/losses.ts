// Losses of rows.
import { type Array64, eachRow, rowsOf } from './array64.ts'
import { logSumExp } from './rows.ts'

/** log softmax(row / temperature). */
export function logSoftmax(row: Float64Array, temperature = 1): Float64Array {
  const total = logSumExp(temperature === 1 ? row : row.map((value) => value / temperature))
  return row.map((value) => value / temperature - total)
}

/** −log softmax(x)[target] of each row. */
export function crossEntropy64(x: Array64, targets: ArrayLike<number>): Array64 {
  return eachRow(x, (row, r) => logSumExp(row) - row[targets[r]])
}

/** Which divergence, as `divergence` of the library takes it. */
export interface DivergenceKind {
  readonly kind?: 'forwardKl' | 'reverseKl' | 'jsd' | 'skewedKl' | 'skewedReverseKl'
  readonly weight?: number
  readonly temperature?: number
}

/** The divergence of student and teacher in each row, times the square of the temperature. */
export function divergence64(
  student: Array64,
  teacher: Array64,
  { kind = 'forwardKl', weight: w = 0.1, temperature = 1 }: DivergenceKind = {},
): Array64 {
  const term = (q: number, t: number): number => {
    if (kind === 'jsd' && w === 0) return t * Math.log(t / q)
    if (kind === 'jsd' && w === 1) return q * Math.log(q / t)
    const m = kind === 'skewedReverseKl' ? (1 - w) * t + w * q : w * t + (1 - w) * q
    if (kind === 'forwardKl') return t * Math.log(t / q)
    if (kind === 'reverseKl') return q * Math.log(q / t)
    if (kind === 'jsd') return w * t * Math.log(t / m) + (1 - w) * q * Math.log(q / m)
    return kind === 'skewedKl' ? t * Math.log(t / m) : q * Math.log(q / m)
  }
  const others = rowsOf(teacher)
  return eachRow(student, (row, r) => {
    const t = logSoftmax(others[r], temperature)
    const q = logSoftmax(row, temperature)
    return q.reduce((all, log, c) => all + term(Math.exp(log), Math.exp(t[c])), 0) * temperature ** 2
  })
}

/** The divergence from a teacher that is known by its likeliest tokens: ids and probabilities (rows, k). */
export function topKDivergence64(
  student: Array64,
  ids: ArrayLike<number>,
  probabilities: ArrayLike<number>,
  k: number,
  kind: 'forwardKl' | 'reverseKl' = 'forwardKl',
): Array64 {
  return eachRow(student, (row, r) => {
    const q = logSoftmax(row)
    const known = Array.from({ length: k }, (_, j) => ({ t: probabilities[r * k + j], log: q[ids[r * k + j]] }))
    const tailT = 1 - known.reduce((all, { t }) => all + t, 0)
    const tailQ = 1 - known.reduce((all, { log }) => all + Math.exp(log), 0)
    if (kind === 'reverseKl') {
      const inside = known.reduce((all, { t, log }) => all + Math.exp(log) * (log - Math.log(t)), 0)
      return inside + Math.max(tailQ, 1e-6) * Math.log(Math.max(tailQ, 1e-6) / Math.max(tailT, 1e-6))
    }
    const inside = known.reduce((all, { t, log }) => all + t * (Math.log(t) - log), 0)
    return inside + (tailT > 1e-6 ? tailT * Math.log(tailT / tailQ) : 0)
  })
}

/** The mean square of a − b in each row. */
export function squaredError64(a: Array64, b: Array64): Array64 {
  const others = rowsOf(b)
  return eachRow(a, (row, r) => row.reduce((all, v, c) => all + (v - others[r][c]) ** 2, 0) / row.length)
}

/** The cosine of a and b in each row. */
export function cosine64(a: Array64, b: Array64): Array64 {
  const others = rowsOf(b)
  const dot = (x: Float64Array, y: Float64Array) => x.reduce((all, v, c) => all + v * y[c], 0)
  return eachRow(a, (x, r) => dot(x, others[r]) / Math.sqrt(dot(x, x) * dot(others[r], others[r])))
}
