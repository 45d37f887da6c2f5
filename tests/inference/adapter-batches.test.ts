import { expect, test } from 'vitest'
import { Adapter, addAdapters, type Ranks } from '../../src/adapters/adapter.ts'
import { Random } from '../../src/core/random.ts'
import type { DecoderConfig } from '../../src/formats/model-config.ts'
import { Engine, type MadeToken, type RowOptions } from '../../src/inference/engine.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config: DecoderConfig = {
  ...{ vocabularySize: 40, width: 32, layers: 2, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 64 },
  ...{ normEps: 1e-5, ropeTheta: 10_000, contextLength: 96, tiedHead: true, eosId: 0 },
}

function skill(name: string, ranks: Ranks, seed: number): Adapter {
  const random = new Random(seed)
  const adapter = Adapter.create(gpu, name, config, ranks, random)
  for (const tensor of adapter.parameters.values()) gpu.write(tensor, random.normals(tensor.size, 0.3))
  return adapter
}

async function collect(engine: Engine, rows: RowOptions[]): Promise<MadeToken[][]> {
  const made = rows.map((): MadeToken[] => [])
  for await (const tokens of engine.run(rows)) for (const [i, token] of tokens.entries()) if (token) made[i].push(token)
  return made
}

test.each([
  ['f32', 1e-4],
  ['nf4', 1e-4],
  ['f16', 3e-2],
] as const)(
  '%s: rows with adapters of their own, and of no adapter, make what each makes alone',
  (storage, tolerance) =>
    withoutLeaks(async () => {
      using model = Decoder.load(gpu, config, randomTensors(config, new Random(2), 0.3), storage)
      // Ranks differ between adapters and layers, are no multiples of four, and some layers have no update.
      using one = skill('one', { '0.self_attn.q_proj': 4, '1.mlp.down_proj': 3, '1.self_attn.o_proj': 8 }, 5)
      using two = skill('two', { '0.self_attn.q_proj': 9, '0.mlp.gate_proj': 1 }, 6)
      using engine = new Engine(model, { pageSize: 16, prefillTokens: 7, tokens: 500, cacheType: 'f32' })
      const rows: RowOptions[] = [
        { ids: [1, 2, 3], maxTokens: 12, updates: one },
        { ids: [9], maxTokens: 5, updates: undefined },
        { ids: Array.from({ length: 20 }, (_, i) => (7 * i) % 40), maxTokens: 9, updates: two },
        { ids: [1, 2, 3], maxTokens: 12, updates: two },
        { ids: [1, 2, 3], maxTokens: 12, updates: undefined },
      ]
      const together = await collect(engine, rows)
      const bytes = gpu.memory.liveBytes
      expect(await collect(engine, rows)).toEqual(together)
      // The recording serves again, whatever the order of the adapters: nothing more is kept.
      await collect(engine, [...rows].reverse())
      expect(gpu.memory.liveBytes).toBe(bytes)
      for (const [i, row] of rows.entries()) {
        const [alone] = await collect(engine, [row])
        expect(together[i].map(({ id }) => id)).toEqual(alone.map(({ id }) => id))
        for (const [j, { logprob }] of alone.entries())
          expect(Math.abs(together[i][j].logprob - logprob)).toBeLessThan(tolerance * (1 + Math.abs(logprob)))
      }
      expect(together[0]).not.toEqual(together[4])
      expect(together[0]).not.toEqual(together[3])
    }),
)

test('adapters that are added do together what their updates add up to', () =>
  withoutLeaks(async () => {
    using one = skill('one', { '0.self_attn.q_proj': 4, '1.mlp.down_proj': 3 }, 5)
    using two = skill('two', { '0.self_attn.q_proj': 9 }, 6)
    using both = Adapter.load(
      gpu,
      'both',
      config,
      addAdapters([await one.toTensors('F32'), await two.toTensors('F32')]),
    )
    /** b · a of the layer's update, [row 3, column 5]. */
    const entry = async (adapter: Adapter, layer: number, linear: 'self_attn.q_proj' | 'mlp.down_proj') => {
      const pair = adapter.pairFor(layer, linear)
      if (!pair) return 0
      const [a, b] = await Promise.all([gpu.read(pair.a), gpu.read(pair.b)])
      const [rank, k] = pair.a.shape
      let sum = 0
      for (let r = 0; r < rank; r++) sum += b[3 * rank + r] * a[r * k + 5]
      return sum
    }
    for (const [layer, linear] of [
      [0, 'self_attn.q_proj'],
      [1, 'mlp.down_proj'],
    ] as const)
      expect(await entry(both, layer, linear)).toBeCloseTo(
        (await entry(one, layer, linear)) + (await entry(two, layer, linear)),
        6,
      )
    expect(both.parameterCount).toBe(one.parameterCount + two.parameterCount)
  }))
