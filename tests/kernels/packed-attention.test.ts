import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { attention } from '../../src/kernels/attention.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { type Array64, checkOp, expectClose, zeros } from '../check-op.ts'
import { gpu } from '../gpu.ts'

/** Rows of several sequences: their lengths depend on the row, so that no two rows are cut alike. */
const startOf = (row: number, token: number) => token - (token % (5 + 3 * row))

function oracle(q: Array64, k: Array64, v: Array64): Array64 {
  const [batch, tokens, heads, size] = q.shape
  const [, , groups] = k.shape
  const y = zeros(...q.shape)
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < tokens; t++)
      for (let h = 0; h < heads; h++) {
        const query = ((b * tokens + t) * heads + h) * size
        const key = (j: number) => ((b * tokens + j) * groups + Math.floor(h / (heads / groups))) * size
        const dot = (j: number) => {
          let sum = 0
          for (let d = 0; d < size; d++) sum += q.data[query + d] * k.data[key(j) + d]
          return sum / Math.sqrt(size)
        }
        const first = startOf(b, t)
        const scores = Array.from({ length: t - first + 1 }, (_, i) => dot(first + i))
        const largest = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - largest))
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        for (const [i, weight] of weights.entries())
          for (let d = 0; d < size; d++) y.data[query + d] += (weight / total) * v.data[key(first + i) + d]
      }
  return y
}

const starts = (rows: number, tokens: number) =>
  Array.from({ length: rows * tokens }, (_, i) => startOf(Math.floor(i / tokens), i % tokens))

checkOp('attention over packed rows', {
  op: (step, q, k, v) => {
    const [rows, tokens] = q.shape
    return attention(step, q, k, v, { starts: step.upload('u32', [rows, tokens], starts(rows, tokens)) })
  },
  reference: oracle,
  shapes: [
    [
      [2, 11, 4, 8],
      [2, 11, 2, 8],
      [2, 11, 2, 8],
    ],
    [
      [1, 67, 1, 4],
      [1, 67, 1, 4],
      [1, 67, 1, 4],
    ],
  ],
})

test('a decoder on a packed row gives each sequence what it gets alone', async () => {
  const config = {
    ...{ vocabularySize: 12, width: 16, layers: 2, heads: 2, kvHeads: 1, headSize: 8, ffnWidth: 32 },
    ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 32, tiedHead: true, eosId: 0 },
  }
  using model = Decoder.random(gpu, config, new Random(1), 0.3)
  const sequences = [
    [1, 2, 3, 4, 5],
    [7, 8, 9],
    [11, 1, 0, 3],
  ]
  using step = gpu.step()
  const alone: number[] = []
  for (const ids of sequences)
    alone.push(...(await step.read(model.forward(step, step.upload('u32', [1, ids.length], ids)))))
  const ids = step.upload('u32', [1, 12], sequences.flat())
  const where = step.upload('u32', [1, 12], [0, 0, 0, 0, 0, 5, 5, 5, 8, 8, 8, 8])
  expectClose('packed', await step.read(model.forward(step, ids, { starts: where })), alone, 1e-5)
  const mixed = await step.read(model.forward(step, ids))
  expect(Math.max(...mixed.map((x, i) => Math.abs(x - alone[i])))).toBeGreaterThan(1e-2)
})
