import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { scale } from '../../src/kernels/elementwise.ts'
import { sum } from '../../src/kernels/reduce.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { type StepRecord, trainLoop } from '../../src/train/loop.ts'
import { Optimiser } from '../../src/train/optimiser.ts'
import { Replays } from '../../src/train/replays.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config = {
  ...{ vocabularySize: 32, width: 32, layers: 2, heads: 2, kvHeads: 1, headSize: 16, ffnWidth: 64 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 64, tiedHead: true, eosId: 0 },
}

/** Twelve steps over rows of three lengths, the shortest first, recorded or not. */
async function train(recorded: boolean, parts: number) {
  using model = Decoder.random(gpu, config, new Random(1), 0.1)
  using optimiser = new Optimiser(gpu, model.parameters, { decay: 0.01, stateBits: 8 })
  using scope = gpu.scope('inputs')
  const rooms = new Map(
    [16, 24, 48].map((tokens) => [
      tokens,
      {
        ids: scope.empty('u32', [2, tokens]),
        targets: scope.empty('u32', [2, tokens]),
        weights: scope.empty('f32', [2, tokens]),
      },
    ]),
  )
  const tokensOf = (index: number, part: number) => [...rooms.keys()][(index + part) % 3]
  const draw = (index: number, part: number) => {
    const tokens = tokensOf(index, part)
    const random = new Random(100 * index + part)
    const { ids, targets, weights } = rooms.get(tokens)!
    gpu.write(
      ids,
      Array.from({ length: 2 * tokens }, () => random.integer(32)),
    )
    gpu.write(
      targets,
      Array.from({ length: 2 * tokens }, () => random.integer(32)),
    )
    gpu.write(
      weights,
      Array.from({ length: 2 * tokens }, () => 1 / (2 * tokens * parts)),
    )
    return String(tokens)
  }
  const records: StepRecord[] = []
  let losses = 0
  const before = gpu.memory.liveBytes
  const peak = gpu.watchPeak()
  await trainLoop({
    ...{ task: 'replay', gpu, steps: 12, lr: (index) => 0.01 / (index + 1), onProgress: () => {} },
    accumulate: { parts, parameters: [...model.parameters.values()] },
    prepare: async (index) => optimiser.begin(0.01 / (index + 1)),
    ...(recorded && { feed: draw }),
    loss(step, index, part) {
      losses++
      if (!recorded) draw(index, part)
      const { ids, targets, weights } = rooms.get(tokensOf(index, part))!
      const total = weightedMean(step, model.losses(step, model.hidden(step, ids), targets), weights, 1)
      return { total, terms: { twice: scale(step, total, 2) } }
    },
    ...(recorded && {
      largest: (step) => {
        const { ids, targets } = rooms.get(48)!
        return sum(step, model.losses(step, model.hidden(step, ids), targets))
      },
    }),
    update: (step, gradients) => optimiser.update(step, gradients),
    after: (record) => void records.push(record),
  })
  return { records, recorded: losses, bytes: peak() - before, weights: await model.toTensors('F32') }
}

test.each([1, 2])('replayed steps of %i parts give the bytes of recorded ones, in the memory of the largest', (parts) =>
  withoutLeaks(async () => {
    const plain = await train(false, parts)
    const replayed = await train(true, parts)
    expect(replayed.records).toEqual(plain.records)
    expect(replayed.weights).toEqual(plain.weights)
    expect(replayed.bytes).toBeLessThan(1.1 * plain.bytes)
    // Each of three shapes is recorded once (or twice, as the first part of a step and as a further one), and planned.
    expect(plain.recorded).toBeGreaterThanOrEqual(12 * parts)
    expect(replayed.recorded).toBeLessThanOrEqual(3 * parts)
  }),
)

test('of many shapes the recordings that were used last are kept', () =>
  withoutLeaks(async () => {
    using replays = new Replays(gpu)
    using scope = gpu.scope('inputs')
    const x = scope.filled('f32', [64], 1)
    let made = 0
    const run = (key: number) =>
      replays.run(String(key), 'many', (step) => {
        made++
        return { y: scale(step, x, key) }
      })
    for (let key = 0; key < 20; key++) expect((await run(key)).y[0]).toBe(key)
    expect(replays.size).toBe(16)
    gpu.write(x, new Float32Array(64).fill(3))
    expect((await run(19)).y[63]).toBe(57)
    expect(made).toBe(20)
    expect((await run(0)).y[0]).toBe(0)
    expect(made).toBe(21)
  }))

test('what was forgotten is recorded anew, and its memory given back', () =>
  withoutLeaks(async () => {
    using scope = gpu.scope('x')
    const x = scope.upload('f32', [4096], new Float32Array(4096).fill(2))
    using replays = new Replays(gpu)
    let recorded = 0
    const twice = () =>
      replays.run('twice', 'twice', (step) => {
        recorded++
        return { sum: sum(step, scale(step, x, 2)) }
      })
    const before = gpu.memory.liveBytes
    expect((await twice()).sum[0]).toBe(16_384)
    await twice()
    expect([recorded, replays.size]).toEqual([1, 1])
    replays.clear()
    expect([replays.size, gpu.memory.liveBytes]).toEqual([0, before])
    expect((await twice()).sum[0]).toBe(16_384)
    expect(recorded).toBe(2)
  }))
