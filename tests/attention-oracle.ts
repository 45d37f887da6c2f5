import { type Array64, zeros } from './check-op.ts'

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
          for (let d = 0; d < size; d++) score += q.data[from + d] * k.data[other(j) + d]
          return score * (scale ?? size ** -0.5)
        })
        const largest = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - largest))
        const total = weights.reduce((all, weight) => all + weight, 0)
        for (const [i, j] of visible.entries())
          for (let d = 0; d < size; d++) y.data[from + d] += (weights[i] / total) * v.data[other(j) + d]
      }
  return y
}
