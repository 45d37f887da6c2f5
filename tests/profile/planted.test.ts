import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'
import { crossEntropy, divergence } from '../../src/kernels/losses.ts'
import { mean } from '../../src/kernels/reduce.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { normaliseHeadImportance } from '../../src/pca/head-importance.ts'
import { StreamingPca } from '../../src/pca/streaming-pca.ts'
import { Ablation, keyLayers, layersToConfirm, spearman } from '../../src/profile/ablate.ts'
import { deriveOutput } from '../../src/profile/derive.ts'
import { addHeadImportance } from '../../src/profile/heads.ts'
import { batchesOf, chooseSamples, countedTokens, groupPicks, pickTokens } from '../../src/profile/samples.ts'
import { planCollection, sitesOf } from '../../src/profile/sites.ts'
import { windowRows } from '../../src/runtime/windows.ts'
import { batchOf, type Row, uploadBatch } from '../../src/train/batch.ts'
import { gpu } from '../gpu.ts'
import { smallConfig } from './tiny-data.ts'

const config = { ...(await smallConfig()), layers: 4 }
const random = new Random(11)
const tokens = 12
const rows: Row[] = Array.from({ length: 6 }, () => ({
  ids: Array.from({ length: tokens + 1 }, () => random.integer(config.vocabularySize)),
  weights: Array.from({ length: tokens }, () => 1),
}))

/** Random weights with `change` made to some. */
function planted(change: (name: string, values: Float32Array) => void): Decoder {
  const tensors = new Map<string, CpuTensor>()
  for (const [name, { shape, ...rest }] of randomTensors(config, new Random(2), 0.15)) {
    const values = toFloat32({ shape, ...rest })
    change(name, values)
    tensors.set(name, cpuTensor('F32', shape, values))
  }
  return Decoder.load(gpu, config, tensors)
}

test('a planted dead head has no importance, and every other has some', async () => {
  const [layer, dead] = [2, 1]
  using decoder = planted((name, values) => {
    // What a head of values that are zero writes is zero; it shares them with its group.
    if (name === `model.layers.${layer}.self_attn.o_proj.weight`)
      for (let row = 0; row < config.width; row++)
        values.fill(0, row * config.width + dead * config.headSize, row * config.width + (dead + 1) * config.headSize)
  })
  const totals = Array.from({ length: config.layers }, () => new Float64Array(config.heads))
  for (const batch of batchesOf(rows, 4)) await addHeadImportance(decoder, batch, totals)
  const importance = normaliseHeadImportance(totals)
  expect(importance[layer][dead]).toBe(0)
  const others = importance.flatMap((heads, l) => heads.filter((_, h) => l !== layer || h !== dead))
  expect(Math.min(...others)).toBeGreaterThan(0)
  for (const heads of importance) expect(Math.hypot(...heads)).toBeCloseTo(1, 10)
})

test('head importance is E|dL/dξ|: the slope of the loss when a head is scaled', async () => {
  const scaled = async (factor: number) => {
    using decoder = planted((name, values) => {
      if (name === 'model.layers.1.self_attn.o_proj.weight')
        for (let row = 0; row < config.width; row++)
          for (let c = 0; c < config.headSize; c++) values[row * config.width + c] *= factor
    })
    const losses: number[] = []
    for (const row of rows) {
      using step = gpu.step()
      const { ids, targets } = uploadBatch(step, batchOf([row]))
      losses.push(await step.readNumber(mean(step, crossEntropy(step, decoder.forward(step, ids), targets))))
    }
    return losses
  }
  const h = 0.02
  const [above, below] = [await scaled(1 + h), await scaled(1 - h)]
  const expected = above.reduce((sum, value, i) => sum + Math.abs(value - below[i]) / (2 * h), 0)
  using decoder = planted(() => {})
  const totals = Array.from({ length: config.layers }, () => new Float64Array(config.heads))
  for (const batch of batchesOf(rows, 4)) await addHeadImportance(decoder, batch, totals)
  expect(Math.abs(totals[1][0] - expected)).toBeLessThan(0.02 * expected + 1e-4)
})

test('a planted identity layer ranks last by score and by ablation, which equals the KL of all logits', async () => {
  const identity = 1
  using decoder = planted((name, values) => {
    if (name.startsWith(`model.layers.${identity}.`) && /(o_proj|down_proj)/.test(name)) values.fill(0)
  })
  const batch = batchOf(rows)
  using ablation = new Ablation(decoder, batch)
  const costs: number[] = []
  for (let layer = 0; layer < config.layers; layer++) costs.push(await ablation.cost(layer))
  expect(Math.abs(costs[identity])).toBeLessThan(1e-6)
  for (const [layer, cost] of costs.entries()) {
    using step = gpu.step()
    const { ids } = uploadBatch(step, batch)
    const full = decoder.forward(step, ids)
    const without = decoder.forward(step, ids, { skip: new Set([layer]) })
    expect(cost).toBeCloseTo(await step.readNumber(mean(step, divergence(step, without, full))), 5)
    if (layer !== identity) expect(cost).toBeGreaterThan(1e-4)
  }
  // With a layer gone the costs are those of two that are gone.
  ablation.skip(new Set([0]))
  using step = gpu.step()
  const { ids } = uploadBatch(step, batch)
  const both = decoder.forward(step, ids, { skip: new Set([0, 2]) })
  const kl = await step.readNumber(mean(step, divergence(step, both, decoder.forward(step, ids))))
  expect(await ablation.cost(2)).toBeCloseTo(kl, 5)
})

test('derived outputs have the mean and scatter of outputs that were streamed', async () => {
  for (const storage of ['f32', 'nf4', 'f16'] as const) {
    if (storage === 'f16' && !gpu.capabilities.f16) continue
    using decoder = Decoder.load(gpu, config, randomTensors(config, new Random(2), 0.15), storage)
    using step = gpu.step()
    const many = Array.from({ length: 200 }, () => random.integer(config.vocabularySize))
    const ids = step.upload('u32', [10, 20], many)
    const ones = step.filled('f32', [200], 1)
    using input = new StreamingPca(gpu, config.width)
    using query = new StreamingPca(gpu, config.heads * config.headSize)
    decoder.hidden(step, ids, {
      observe(name, x) {
        if (name === '1.attention.input') input.update(step, x, ones, 200)
        if (name === '1.query') query.update(step, x, ones, 200)
      },
    })
    const [derived, streamed] = [
      await deriveOutput(decoder, 1, 'self_attn.q_proj', await input.state()),
      await query.state(),
    ]
    if (!('scatter' in derived && 'scatter' in streamed)) throw new TypeError('both states are exact')
    const worst = (a: Float64Array, b: Float64Array) => {
      const scale = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0) / scale
    }
    const bound = storage === 'f16' ? 3e-3 : 1e-5
    expect(worst(derived.mean, streamed.mean), storage).toBeLessThan(bound)
    expect(worst(derived.scatter, streamed.scatter), storage).toBeLessThan(bound)
  }
})

test('an output wider than its input is a sketch that lost nothing', async () => {
  using decoder = planted(() => {})
  using step = gpu.step()
  const x = step.upload('f32', [30, 64], random.normals(30 * 64))
  using input = new StreamingPca(gpu, 64)
  using output = new StreamingPca(gpu, config.ffnWidth)
  const ones = step.filled('f32', [30], 1)
  input.update(step, x, ones, 30)
  output.update(step, decoder.product(step, 0, 'mlp.gate_proj', x), ones, 30)
  // Thirty rows of 64 dimensions: the scatter has no full rank.
  const derived = await deriveOutput(decoder, 0, 'mlp.gate_proj', await input.state())
  const streamed = await output.state()
  if (!('rows' in derived && 'scatter' in streamed)) throw new TypeError('a sketch and an exact state')
  const n = config.ffnWidth
  let worst = 0
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let sum = 0
      for (let r = 0; r < derived.rows.length / n; r++) sum += derived.rows[r * n + i] * derived.rows[r * n + j]
      worst = Math.max(worst, Math.abs(sum - streamed.scatter[i * n + j]))
    }
  const scale = streamed.scatter.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  expect(worst / scale).toBeLessThan(1e-5)
  expect(derived.shed).toBe(0)
})

test('the plan keeps to its memory and to its share of the forward pass, and says how', () => {
  const wide = { ...config, layers: 30, width: 576, heads: 9, headSize: 64, ffnWidth: 1536 }
  const [forwardFlops, pooled] = [212e6, 512]
  const one = planCollection(wide, { memory: 2 ** 31, share: 0.12, forwardFlops, pooled })
  expect(one.passes).toHaveLength(1)
  expect(new Set(Object.values(one.methods))).toEqual(new Set(['covariance']))
  const flops = sitesOf(wide)
    .filter(({ from }) => !from)
    .reduce((sum, { dimension }) => sum + dimension * (dimension + 1), 0)
  expect(flops / one.stride / forwardFlops).toBeLessThan(0.12)
  // Updates of few tokens move as much memory as those of many: fewer tokens are taken, but never none.
  const stride = (tokens: number) =>
    planCollection(wide, { memory: 2 ** 31, share: 0.12, forwardFlops, pooled: tokens }).stride
  expect([stride(64), stride(512), stride(8192)]).toEqual([18, 10, 8])
  const several = planCollection(wide, { memory: 2 ** 27, share: 2, forwardFlops, pooled })
  expect(several.passes.length).toBeGreaterThan(2)
  expect(several.bytes).toBeLessThanOrEqual(2 ** 27)
  expect(several.stride).toBe(1)
  expect(several.passes.flat()).toEqual(one.passes.flat())
  // Above 4,096 dimensions a covariance would be too large for any machine.
  const large = planCollection({ ...wide, ffnWidth: 11008 }, { memory: 2 ** 31, share: 2, forwardFlops, pooled })
  expect(large.methods['0.ffn.hidden']).toBe('frequent-directions')
  expect(large.methods['0.ffn.input']).toBe('covariance')
})

test('picked tokens are neither padding nor first, one of so many, and everywhere in a row', () => {
  const batch = batchesOf(
    rows.map((row, i) => ({
      ids: Array.from(row.ids).slice(0, 13 - i),
      weights: Array.from(row.weights).slice(0, 12 - i),
    })),
    6,
  )[0]
  expect(batch.tokens).toBe(16)
  const counted = countedTokens(batch)
  expect(counted.reduce((sum, value) => sum + value, 0)).toBe(11 + 10 + 9 + 8 + 7 + 6)
  const parts = [0, 1, 2].map((first) => [...pickTokens(batch, first, 3)])
  expect(parts.flat().sort((a, b) => a - b)).toEqual([...counted.keys()].filter((i) => counted[i] === 1))
  // The same tokens in groups: as many batches as fill a pool, each from a row where a window may begin.
  const single = batchesOf(rows, 1)
  const groups = groupPicks(single, { stride: 3, window: 64 }, 128)
  expect(groups.flatMap(({ begin, end }) => [begin, end])).toEqual(
    groups.flatMap((_, i) => [2 * i, Math.min(2 * i + 2, single.length)]),
  )
  for (const { begin, picks } of groups)
    for (const [i, { indices, at }] of picks.entries()) {
      expect(at).toBe(64 * i)
      expect(indices).toEqual(pickTokens(single[begin + i], begin + i, 3))
    }
  expect(groupPicks([batch], { stride: 1, window: 64 }, 32)[0].rows).toBe(64)
  // Without gaps where the columns allow it, and never from a row where a window may not begin.
  expect(windowRows([576, 1536])).toBe(2)
  expect(windowRows([1536])).toBe(1)
  expect(windowRows([576, 6])).toBe(64)
  expect(windowRows([7])).toBe(128)
  const [dense] = groupPicks(single, { stride: 3, window: 1 }, 128)
  expect(dense.picks.map(({ at }) => at)).toEqual(
    dense.picks.map((_, i) => dense.picks.slice(0, i).reduce((sum, { indices }) => sum + indices.length, 0)),
  )
  const shards = [0, 1].map((index) => chooseSamples(rows, 5, 1, { index, count: 2 }))
  expect(new Set(shards.flat())).toEqual(new Set(chooseSamples(rows, 5, 1)))
  expect(shards.map((shard) => shard.length)).toEqual([3, 2])
})

test('layers to confirm are those at both ends; key layers make half of the cost; Spearman sees order alone', () => {
  expect(layersToConfirm([5, 1, 4, 2, 3], 4)).toEqual([0, 1, 2, 3])
  expect(layersToConfirm([5, 1, 4], 12)).toEqual([0, 1, 2])
  const measured = [1, 6, 2, 3].map((kl, layer) => ({ layer, kl }))
  expect(keyLayers(measured)).toEqual([1])
  expect(keyLayers([...measured, { layer: 4, kl: 5 }])).toEqual([1, 4])
  expect(spearman([1, 2, 3, 4], [10, 20, 400, 9000])).toBe(1)
  expect(spearman([1, 2, 3, 4], [4, 3, 2, 1])).toBe(-1)
  // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 5])
  expect(spearman([1, 2, 2, 4, 5], [2, 1, 3, 3, 5])).toBeCloseTo(0.7631578947368421, 12)
  expect(spearman([1, 1, 1], [1, 2, 3])).toBeUndefined()
})
