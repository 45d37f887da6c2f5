import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { Random } from '../../src/core/random.ts'
import type { DecoderConfig } from '../../src/formats/model-config.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { Engine, type RowOptions } from '../../src/inference/engine.ts'
import { generate } from '../../src/inference/generate.ts'
import { measurePerplexity } from '../../src/inference/perplexity.ts'
import { argmax } from '../../src/kernels/select.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config: DecoderConfig = {
  ...{ vocabularySize: 40, width: 32, layers: 2, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 48 },
  ...{ normEps: 1e-5, ropeTheta: 10_000, contextLength: 96, tiedHead: true, eosId: 0 },
}
const options = { pageSize: 16, prefillTokens: 7, cacheType: 'f32' } as const

/** The likeliest continuation, the whole sequence run anew for every token. */
async function naive(model: Decoder, prompt: readonly number[], count: number, updates?: Adapter): Promise<number[]> {
  const ids = [...prompt]
  for (let i = 0; i < count; i++) {
    using step = gpu.step()
    const logits = model.forward(step, step.upload('u32', [1, ids.length], ids), { updates })
    ids.push((await step.read(argmax(step, logits))).at(-1)!)
  }
  return ids.slice(prompt.length)
}

async function collect(engine: Engine, rows: RowOptions[], updates?: Adapter): Promise<number[][]> {
  const made = rows.map((): number[] => [])
  for await (const tokens of engine.run(rows, { updates }))
    for (const [i, token] of tokens.entries()) if (token) made[i].push(token.id)
  return made
}

const prompts = [[3], [1, 2, 3, 4, 5, 6, 7], Array.from({ length: 40 }, (_, i) => (i * 7) % 40)]

test('cached, chunked and replayed generation equals running the whole sequence anew', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(2), 0.3)
    using engine = new Engine(model, options)
    for (const ids of prompts)
      expect((await collect(engine, [{ ids, maxTokens: 20 }]))[0]).toEqual(await naive(model, ids, 20))
  }))

test('logits that are not finite are an error that says what to do', () =>
  withoutLeaks(async () => {
    const tensors = new Map(randomTensors(config, new Random(2), 0.3))
    const large = new Float32Array(32 * 48).fill(6e4)
    tensors.set('model.layers.0.mlp.down_proj.weight', cpuTensor('F32', [32, 48], large))
    for (const storage of gpu.capabilities.f16 ? (['f16', 'f32'] as const) : (['f32'] as const)) {
      using model = Decoder.load(gpu, config, tensors, storage)
      using engine = new Engine(model, { ...options, cacheType: storage })
      const made = collect(engine, [{ ids: [1, 2, 3], maxTokens: 3 }])
      if (storage === 'f32') expect((await made)[0]).toHaveLength(3)
      else await expect(made).rejects.toThrow(/Cannot generate token 1: .* NaN .* activations in f32 .*--precision f32/)
    }
    tensors.set('model.norm.weight', cpuTensor('F32', [32], new Float32Array(32).fill(Number.POSITIVE_INFINITY)))
    using broken = Decoder.load(gpu, config, tensors)
    using engine = new Engine(broken, options)
    await expect(collect(engine, [{ ids: [1], maxTokens: 1 }])).rejects.toThrow('its weights, or those of the adapter')
    const measured = measurePerplexity(broken, [1, 2, 3])
    await expect(measured).rejects.toThrow('Cannot measure token 1: the model gives NaN or infinity')
  }))

test('rows of a batch do not see each other, and may want different numbers of tokens', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(2), 0.3)
    using engine = new Engine(model, { ...options, tokens: 300 })
    const rows = prompts.map((ids, i) => ({ ids, maxTokens: 6 + 5 * i }))
    const made = await collect(engine, rows)
    for (const [i, { ids, maxTokens }] of rows.entries()) expect(made[i]).toEqual(await naive(model, ids, maxTokens))
  }))

test('an adapter changes what is made, and another run without it does not see it', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(2), 0.3)
    const random = new Random(8)
    using adapter = Adapter.create(gpu, 'skill', config, { '0.self_attn.q_proj': 4, '1.mlp.down_proj': 4 }, random)
    for (const tensor of adapter.parameters.values()) gpu.write(tensor, random.normals(tensor.size, 0.4))
    using engine = new Engine(model, options)
    const row = { ids: prompts[1], maxTokens: 12 }
    const plain = await collect(engine, [row])
    const skilled = await collect(engine, [row], adapter)
    expect(skilled[0]).toEqual(await naive(model, row.ids, 12, adapter))
    expect(skilled).not.toEqual(plain)
    expect(await collect(engine, [row])).toEqual(plain)
  }))

/** Bytes that the host holds once garbage is gone: JavaScript's heap and its buffers. */
function heldByHost(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return heapUsed + external + arrayBuffers
}

test('two hundred chats, several at a time, that are left at random give all their memory back', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(2), 0.3)
    using engine = new Engine(model, { ...options, tokens: 200 })
    const random = new Random(9)
    const chat = async () => {
      const ids = Array.from({ length: 1 + random.integer(20) }, () => random.integer(40))
      const stopAfter = random.integer(6)
      let made = 0
      const controller = new AbortController()
      const sampling = { maxTokens: 16, temperature: 0.8, seed: random.integer(1000), signal: controller.signal }
      for await (const _ of generate(engine, ids, { ...sampling, endAtEos: false })) {
        if (made++ < stopAfter) continue
        if (stopAfter % 2 === 0) break
        controller.abort()
      }
    }
    const chats = async (count: number) => {
      for (let i = 0; i < count; i += 4) await Promise.all([chat(), chat(), chat(), chat()])
    }
    await chats(20)
    const before = {
      live: gpu.live,
      bytes: gpu.memory.liveBytes,
      pooled: gpu.memory.pooledBytes,
      free: engine.freeTokens,
    }
    const host = heldByHost()
    await chats(200)
    expect({
      live: gpu.live,
      bytes: gpu.memory.liveBytes,
      pooled: gpu.memory.pooledBytes,
      free: engine.freeTokens,
    }).toEqual(before)
    // Compiled code and the runner's own notes come and go by a few hundred kilobytes.
    expect(heldByHost() - host).toBeLessThan(3e6)
  }))

test('what does not fit the context or the cache is refused, and leaves nothing behind', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(2), 0.3)
    using engine = new Engine(model, options)
    const run = (...rows: RowOptions[]) => collect(engine, rows)
    await expect(run({ ids: [], maxTokens: 1 })).rejects.toThrow('empty prompt')
    await expect(run({ ids: prompts[2], maxTokens: 60 })).rejects.toThrow('the context is 96')
    const row = { ids: prompts[2], maxTokens: 40 }
    await expect(run(row, row)).rejects.toThrow('Cannot keep 80 tokens: 5 pages are needed, 1 of 6 are free')
    await expect(run({ ...row, temperature: -1 })).rejects.toThrow('temperature')
    expect(engine.freeTokens).toBe(96)
  }))
