import { expect, test } from 'vitest'
import '../../src/kernels/add.ts'
import { Random } from '../../src/core/random.ts'
import { measurePerplexity } from '../../src/inference/perplexity.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config = {
  ...{ vocabularySize: 32, width: 32, layers: 2, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 64 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 16, tiedHead: true, eosId: 0 },
}
const ids = Array.from({ length: 29 }, (_, i) => (i * i * 7 + 3) % 32)

/** −log p of every token of a window but the first, from plain logits in f64. */
async function oracle(model: Decoder, window: readonly number[]): Promise<number[]> {
  using step = gpu.step()
  const logits = await step.read(model.forward(step, step.upload('u32', [1, window.length], window)))
  return window.slice(1).map((id, at) => {
    const row = [...logits.subarray(at * 32, at * 32 + 32)]
    return Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[id]
  })
}

test.each([
  [
    { context: 8 },
    [
      [0, 8, 1],
      [8, 16, 1],
      [16, 24, 1],
      [24, 29, 1],
    ],
  ],
  [
    { context: 8, bosId: 1 },
    [
      [0, 8, 0],
      [8, 16, 0],
      [16, 24, 0],
      [24, 29, 0],
    ],
  ],
  [
    { context: 12, stride: 8 },
    [
      [0, 12, 1],
      [8, 20, 4],
      [16, 28, 4],
      [24, 29, 4],
    ],
  ],
  [
    { context: 14, bosId: 1, stride: 14 },
    [
      [0, 14, 0],
      [14, 28, 0],
      [28, 29, 0],
    ],
  ],
  [
    { context: 14 },
    [
      [0, 14, 1],
      [14, 28, 1],
    ],
  ],
  [
    {},
    [
      [0, 16, 1],
      [16, 29, 1],
    ],
  ],
] as [{ context?: number; stride?: number; bosId?: number }, [begin: number, end: number, first: number][]][])(
  '%j: each token is counted once, in its window',
  (options, windows) =>
    withoutLeaks(async () => {
      using model = Decoder.random(gpu, config, new Random(1), 0.3)
      const measured = await measurePerplexity(model, ids, options)
      const prefix = options.bosId === undefined ? [] : [options.bosId]
      const want: number[] = []
      for (const [begin, end, first] of windows) {
        const losses = await oracle(model, [...prefix, ...ids.slice(begin, end)])
        want.push(...losses.slice(first - 1 + prefix.length))
      }
      expect(measured.windows).toBe(windows.length)
      expect(measured.losses.length).toBe(want.length)
      for (const [i, loss] of measured.losses.entries()) expect(loss).toBeCloseTo(want[i], 4)
      const mean = want.reduce((sum, loss) => sum + loss, 0) / want.length
      expect(measured.perplexity).toBeCloseTo(Math.exp(mean), 3)
    }),
)

test('what cannot be measured is refused, and a signal ends it', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(1))
    const measure = (text: number[], options = {}) => measurePerplexity(model, text, options)
    await expect(measure([1])).rejects.toThrow('a text of 1 tokens')
    await expect(measure(ids, { context: 17 })).rejects.toThrow('from 2 to 16')
    await expect(measure(ids, { context: 16, bosId: 1 })).rejects.toThrow('from 2 to 15')
    await expect(measure(ids, { context: 8, stride: 9 })).rejects.toThrow('from 1 to 8')
    await expect(measure(ids, { signal: AbortSignal.abort() })).rejects.toThrow('Stopped at token 0 of 29')
  }))
