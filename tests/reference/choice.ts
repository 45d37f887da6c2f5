// Choosing among the elements of a row. A draw by Gumbel's trick has several right answers where f32 cannot tell two scores
// apart, so a reference looks at what was made: a choice whose score in f64 is that of the best but for roundings is right.
import { type Array64, eachRow, rowsOf } from './array64.ts'
import { logSumExp } from './rows.ts'

/** The `k` largest of each row, largest first; ties to the smaller index. */
export function topK64(x: Array64, k: number): { readonly indices: Array64; readonly values: Array64 } {
  const rows = rowsOf(x)
  const order = rows.map((row) => [...row.keys()].sort((a, b) => row[b] - row[a] || a - b).slice(0, k))
  const shape = [...x.shape.slice(0, -1), k]
  return {
    indices: { shape, data: Float64Array.from(order.flat()) },
    values: { shape, data: Float64Array.from(order.flatMap((ids, r) => ids.map((id) => rows[r][id]))) },
  }
}

/** PCG hash of O'Neill, 2014, as the uniform number that f32 makes of it, below 1. */
export function uniform64(seed: number, i: number): number {
  const state = (Math.imul(i ^ Math.imul(seed, 0x9e3779b9), 747796405) + 2891336453) >>> 0
  const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0
  return Math.min(Math.fround(((((word >>> 22) ^ word) >>> 0) >>> 8) + 0.5) / 16777216, 1 - 2 ** -24)
}

const roundings = 1e-3

/** The index of the best score; `made` where its score is as good but for roundings. */
function bestOf(scores: readonly number[], made: number): number {
  const best = scores.reduce((at, score, i) => (score > scores[at] ? i : at), 0)
  return scores[made] >= scores[best] - roundings ? made : best
}

/** One index of each row drawn from softmax(x) by Gumbel's trick. */
export function sample64(x: Array64, seed: number, made: ArrayLike<number>): Array64 {
  return eachRow(x, (row, r) =>
    bestOf(
      Array.from(row, (value, c) => value - Math.log(-Math.log(uniform64(seed, r * row.length + c)))),
      made[r],
    ),
  )
}

/** What {@link chooseTokens64} knows of the rows. */
export interface ChoiceState {
  /** (B, 5): temperature, top k, top p, min p, repetition penalty. */
  readonly settings: Array64
  readonly seeds: Array64
  readonly position: Array64
  /** (B, S). */
  readonly history: Array64
}

/** Logits after the repetition penalty: each token of the past once. */
export function penalized64(logits: Array64, { settings, position, history }: ChoiceState): Array64 {
  const y = { shape: logits.shape, data: logits.data.slice() }
  const past = rowsOf(history)
  for (const [r, row] of rowsOf(y).entries()) {
    const penalty = rowsOf(settings)[r][4]
    for (const token of new Set(past[r].subarray(0, position.data[r] + 1)))
      if (token < row.length) row[token] *= row[token] > 0 ? 1 / penalty : penalty
  }
  return y
}

/** The next token of each row: among those that top k, top p and min p leave, drawn by Gumbel's trick; or the likeliest. */
export function chooseTokens64(logits: Array64, state: ChoiceState, made: ArrayLike<number>): Array64 {
  return eachRow(penalized64(logits, state), (row, r) => {
    const [temperature, topK, topP, minP] = rowsOf(state.settings)[r]
    if (temperature === 0) return bestOf([...row], made[r])
    const largest = row.reduce((a, b) => Math.max(a, b))
    const weights = row.map((value) => Math.exp((value - largest) / temperature))
    const total = weights.reduce((a, b) => a + b)
    const order = [...row.keys()].sort((a, b) => row[b] - row[a])
    let mass = 0
    const kept = new Set(
      order.filter((id, place) => {
        const inside = (topK === 0 || place < topK) && mass < topP * total && weights[id] >= minP
        mass += weights[id]
        return inside
      }),
    )
    const seed = (state.seeds.data[r] + Math.imul(state.position.data[r], 0x85ebca6b)) >>> 0
    return bestOf(
      Array.from(row, (value, c) =>
        kept.has(c) ? value / temperature - Math.log(-Math.log(uniform64(seed, c))) : Number.NEGATIVE_INFINITY,
      ),
      made[r],
    )
  })
}

/** The log-probability at temperature 1 of the chosen tokens, after the penalty. */
export function chosenLogs64(logits: Array64, state: ChoiceState, chosen: ArrayLike<number>): Array64 {
  return eachRow(penalized64(logits, state), (row, r) => row[chosen[r]] - logSumExp(row))
}

/** Logits with the lowest value where the mask (B, words) has no bit. */
export function restrict64(logits: Array64, mask: Array64): Array64 {
  const columns = logits.shape[1]
  const words = mask.shape[1]
  const data = logits.data.map((value, i) => {
    const c = i % columns
    return (mask.data[Math.floor(i / columns) * words + (c >> 5)] >>> (c & 31)) & 1 ? value : Math.fround(-3.4e38)
  })
  return { shape: logits.shape, data }
}
