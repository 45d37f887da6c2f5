import { expect, test } from 'vitest'
import { GpuError, InterruptedError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { add } from '../../src/kernels/add.ts'
import { scale } from '../../src/kernels/elementwise.ts'
import { crossEntropy } from '../../src/kernels/losses.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { batchOf, uploadBatch } from '../../src/train/batch.ts'
import { evaluate } from '../../src/train/evaluate.ts'
import { type StepRecord, trainLoop } from '../../src/train/loop.ts'
import { Optimiser } from '../../src/train/optimiser.ts'
import { cosineSchedule, linearSchedule, schedules, stableSchedule } from '../../src/train/schedule.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config = {
  ...{ vocabularySize: 12, width: 16, layers: 1, heads: 2, kvHeads: 1, headSize: 8, ffnWidth: 32 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 16, tiedHead: true, eosId: 0 },
}

/** Counting upwards modulo 12: something that a small model learns at once. */
function countingBatch(random: Random, rows: number) {
  return batchOf(
    Array.from({ length: rows }, () => {
      const start = random.integer(12)
      return { ids: Array.from({ length: 9 }, (_, t) => (start + t) % 12), weights: new Array(8).fill(1) }
    }),
  )
}

async function train(
  steps: number,
  from?: { model: Decoder; optimiser: Optimiser; step: number },
): Promise<StepRecord[]> {
  const records: StepRecord[] = []
  const own = from ? undefined : Decoder.random(gpu, config, new Random(1), 0.1)
  const model = from?.model ?? own!
  const ownOptimiser = from ? undefined : new Optimiser(gpu, model.parameters, { decay: 0.01 })
  const optimiser = from?.optimiser ?? ownOptimiser!
  await trainLoop({
    task: 'count',
    gpu,
    from: from?.step,
    steps,
    lr: () => 0.01,
    loss(step, index) {
      const batch = countingBatch(new Random(100 + index), 8)
      const { ids, targets, weights } = uploadBatch(step, batch)
      const total = weightedMean(step, crossEntropy(step, model.forward(step, ids), targets), weights, batch.total)
      return { total, terms: { count: total } }
    },
    update: (step, gradients) => optimiser.update(step, gradients, 0.01),
    after: (record) => void records.push(record),
    onProgress: () => {},
  })
  ownOptimiser?.[Symbol.dispose]()
  own?.[Symbol.dispose]()
  return records
}

test('a model learns to count, twice the same to the last bit', () =>
  withoutLeaks(async () => {
    const first = await train(60)
    expect(first[0].loss).toBeGreaterThan(2)
    expect(first.at(-1)!.loss).toBeLessThan(0.1)
    expect(await train(60)).toEqual(first)
  }))

test('training goes on from saved weights and moments as if it had not stopped', () =>
  withoutLeaks(async () => {
    const whole = await train(12)
    using model = Decoder.random(gpu, config, new Random(1), 0.1)
    const saved = await (async () => {
      using optimiser = new Optimiser(gpu, model.parameters, { decay: 0.01 })
      await train(5, { model, optimiser, step: 0 })
      return { weights: await model.toTensors('F32'), moments: await optimiser.save() }
    })()
    using again = Decoder.load(gpu, config, saved.weights)
    using optimiser = new Optimiser(gpu, again.parameters, { decay: 0.01 })
    optimiser.load(saved.moments)
    expect(await train(12, { model: again, optimiser, step: 5 })).toEqual(whole.slice(5))
    saved.moments.delete('m.model.norm.weight')
    expect(() => optimiser.load(saved.moments)).toThrow('m.model.norm.weight is missing')
  }))

test('parts of a step add up to the step of the whole batch', () =>
  withoutLeaks(async () => {
    const run = async (parts: number) => {
      using model = Decoder.random(gpu, config, new Random(1), 0.1)
      using optimiser = new Optimiser(gpu, model.parameters)
      const records: StepRecord[] = []
      await trainLoop({
        ...{ task: 'parts', gpu, steps: 3, lr: () => 0.01, onProgress: () => {} },
        accumulate: { parts, parameters: [...model.parameters.values()] },
        loss(step, index, part) {
          const random = new Random(100 + index)
          const batches = Array.from({ length: 4 }, () => countingBatch(random, 2))
          const each = 4 / parts
          const losses = batches.slice(part * each, (part + 1) * each).map((batch) => {
            const { ids, targets, weights } = uploadBatch(step, batch)
            return weightedMean(step, crossEntropy(step, model.forward(step, ids), targets), weights, 4 * batch.total)
          })
          const total = losses.reduce((sum, loss) => add(step, sum, loss))
          return { total, terms: { count: total } }
        },
        update: (step, gradients) => optimiser.update(step, gradients, 0.01),
        after: (record) => void records.push(record),
      })
      return records
    }
    const [whole, two, four] = [await run(1), await run(2), await run(4)]
    for (const parts of [two, four])
      for (const [i, { loss, gradientNorm, terms }] of parts.entries()) {
        expect(loss).toBeCloseTo(whole[i].loss, 5)
        expect(terms.count).toBeCloseTo(whole[i].terms.count, 5)
        expect(gradientNorm / whole[i].gradientNorm).toBeCloseTo(1, 4)
      }
    expect(whole[2].loss).toBeLessThan(whole[0].loss)
  }))

test('a loss that is not finite stops the run and names the step and the terms', async () => {
  using scope = gpu.scope('weights')
  const w = scope.filled('f32', [1], 1)
  using optimiser = new Optimiser(gpu, new Map([['w', w]]))
  const run = trainLoop({
    task: 'burst',
    gpu,
    steps: 3,
    lr: () => 1,
    loss(step) {
      const total = scale(step, scale(step, w, 3e38), 3e38)
      return { total, terms: { huge: total } }
    },
    update: (step, gradients) => optimiser.update(step, gradients, 1),
    onProgress: () => {},
  })
  await expect(run).rejects.toThrow(GpuError)
  await expect(run).rejects.toThrow('The loss of burst is Infinity at step 0 (huge Infinity)')
})

test('an aborted signal stops between two steps', async () => {
  using scope = gpu.scope('weights')
  const w = scope.filled('f32', [1], 1)
  using optimiser = new Optimiser(gpu, new Map([['w', w]]))
  const controller = new AbortController()
  let steps = 0
  const run = trainLoop({
    task: 'patience',
    gpu,
    steps: 10,
    lr: () => 0,
    loss: (step) => ({ total: scale(step, w, 1), terms: {} }),
    update: (step, gradients) => optimiser.update(step, gradients, 0),
    after() {
      if (++steps === 3) controller.abort()
    },
    onProgress: () => {},
    signal: controller.signal,
  })
  await expect(run).rejects.toThrow(InterruptedError)
  expect(steps).toBe(3)
})

test('evaluation scores items and tokens of different lengths by the likeliest next token', () =>
  withoutLeaks(async () => {
    // A model of zeros gives all logits the same: the likeliest token is 0.
    using model = Decoder.random(gpu, config, new Random(2), 0)
    const items = [
      { ids: [5, 0, 0], weights: [1, 1] },
      { ids: [5, 0, 7, 0], weights: [1, 1, 0] },
      { ids: [1, 7, 0], weights: [0, 1] },
    ]
    const options = { gpu, model, items, task: 'score', onProgress: () => {}, batch: 2 }
    const byItem = await evaluate({ ...options, unit: 'item' })
    expect([...byItem.correct]).toEqual([1, 0, 1])
    expect(byItem.bitsPerToken).toBeCloseTo(Math.log2(12), 5)
    const byToken = await evaluate({ ...options, unit: 'token' })
    expect([...byToken.correct]).toEqual([1, 1, 1, 0, 1])
    expect(byToken.score).toBeCloseTo(0.8)
  }))

test('schedules follow their formulas at every step', () => {
  const [lr, steps, warmup, decay] = [3e-4, 200, 20, 50]
  const falls = {
    cosine: (x: number) => (1 + Math.cos(Math.PI * x)) / 2,
    linear: (x: number) => 1 - x,
    constant: () => 1,
  }
  for (const [name, fall] of Object.entries(falls))
    for (let step = 0; step <= steps; step++) {
      const want = step < warmup ? (step + 1) / warmup : fall((step - warmup) / (steps - warmup))
      expect(schedules[name as keyof typeof falls]({ lr, steps, warmup })(step)).toBeCloseTo(lr * want, 12)
    }
  const stable = stableSchedule({ lr, steps, warmup, decay })
  for (let step = 0; step <= steps; step++) {
    const want = step < warmup ? (step + 1) / warmup : step < 150 ? 1 : 1 - Math.sqrt((step - 150) / decay)
    expect(stable(step)).toBeCloseTo(lr * want, 12)
  }
  expect(schedules.stable({ lr, steps, warmup })(180)).toBe(lr)
  expect(schedules.cosine({ lr, steps: 5, warmup: 0 })(0)).toBe(lr)
})

test('schedules rise and fall where they should', () => {
  const linear = linearSchedule({ lr: 1, steps: 110, warmup: 10 })
  expect([linear(0), linear(9), linear(10), linear(60), linear(110)]).toEqual([0.1, 1, 1, 0.5, 0])
  const cosine = cosineSchedule({ lr: 2, steps: 110, warmup: 10 })
  expect(cosine(9)).toBe(2)
  expect(cosine(60)).toBeCloseTo(1)
  expect(cosine(110)).toBeCloseTo(0)
})

test('rows of different lengths are no batch', () => {
  expect(() =>
    batchOf([
      { ids: [1, 2], weights: [1] },
      { ids: [1, 2, 3], weights: [1, 1] },
    ]),
  ).toThrow('all of one length')
  expect(() => batchOf([])).toThrow(RangeError)
})
