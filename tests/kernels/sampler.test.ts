import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { advanceTokens, chooseTokens, type Sampling, samplingSettings } from '../../src/kernels/sampler.ts'
import { sample } from '../../src/kernels/select.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { uniform64 } from '../reference/choice.ts'

const columns = 203

function state(scope: Scope, rows: number, sampling: Sampling, positions: number[] = new Array(rows).fill(0)) {
  return {
    ids: scope.filled('u32', [rows, 1], 0),
    position: scope.upload('u32', [rows], positions),
    history: scope.filled('u32', [rows, 8], 0),
    settings: scope.upload('f32', [rows, 5], Array.from({ length: rows }, () => samplingSettings(sampling)).flat()),
    seeds: scope.upload(
      'u32',
      [rows],
      Array.from({ length: rows }, (_, i) => 1000 + i),
    ),
  }
}

/** The tokens that may be chosen and their probabilities, in f64. */
function allowed(logits: Float32Array, { temperature = 0, topK = 0, topP = 1, minP = 0 }: Sampling) {
  const largest = Math.max(...logits)
  const weights = [...logits].map((value) => Math.exp((value - largest) / temperature))
  const total = weights.reduce((sum, value) => sum + value, 0)
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a])
  let mass = 0
  const kept = order.filter((id, place) => {
    const inside = (topK === 0 || place < topK) && mass < topP * total && weights[id] >= minP
    mass += weights[id]
    return inside
  })
  const keptMass = kept.reduce((sum, id) => sum + weights[id], 0)
  return new Map(kept.map((id) => [id, weights[id] / keptMass]))
}

const settings: Sampling[] = [
  { temperature: 1 },
  { temperature: 0.7, topK: 5 },
  { temperature: 1.3, topP: 0.6 },
  { temperature: 1, minP: 0.2 },
  { temperature: 2, topK: 20, topP: 0.9, minP: 0.05 },
]

test.each(settings)('draws follow the distribution that %o leaves', (sampling) =>
  withoutLeaks(async () => {
    const rows = 4096
    const logits = new Random(3).normals(columns).map((value) => 2 * value)
    using step = gpu.step()
    const all = new Float32Array(rows * columns)
    for (let row = 0; row < rows; row++) all.set(logits, row * columns)
    const { chosen, logprob } = chooseTokens(
      step,
      step.upload('f32', [rows, columns], all),
      state(step, rows, sampling),
    )
    const ids = await step.read(chosen)
    const want = allowed(logits, sampling)
    const counts = new Map<number, number>()
    for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1)
    expect([...counts.keys()].filter((id) => !want.has(id))).toEqual([])
    for (const [id, share] of want)
      expect(Math.abs((counts.get(id) ?? 0) / rows - share)).toBeLessThan(5 * Math.sqrt(share / rows) + 1e-3)
    const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0))
    expect((await step.read(logprob))[0]).toBeCloseTo(logits[ids[0]] - total, 4)
    await step.checkGuards()
  }),
)

test('temperature 0 takes the likeliest, ties the first; a seed and a place give the same draw', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const logits = new Random(4).normals(columns)
    logits[17] = logits[150] = 9
    const two = step.upload('f32', [2, columns], [...logits, ...logits])
    expect([...(await step.read(chooseTokens(step, two, state(step, 2, {})).chosen))]).toEqual([17, 17])
    const draw = async (positions: number[]) => {
      const rows = state(step, 2, { temperature: 5 }, positions)
      return [...(await step.read(chooseTokens(step, two, rows).chosen))]
    }
    expect(await draw([3, 3])).toEqual(await draw([3, 3]))
    expect(await draw([3, 3])).not.toEqual(await draw([4, 4]))
  }))

test('the repetition penalty weakens the tokens of the history, once each', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const logits = new Float32Array(columns).fill(-4)
    logits.set([3, 2.5, -1, 2], 0)
    const rows = state(step, 1, { repetitionPenalty: 2 }, [2])
    gpu.write(rows.history, [0, 0, 2, 1, 9, 9, 9, 9]) // places 0 to 2 are the past: tokens 0 (twice) and 2
    const { chosen, logprob } = chooseTokens(step, step.upload('f32', [1, columns], logits), rows, { penalize: true })
    expect((await step.read(chosen))[0]).toBe(1)
    const after = [1.5, 2.5, -2, 2, ...new Array(columns - 4).fill(-4)]
    const total = Math.log(after.reduce((sum, value) => sum + Math.exp(value), 0))
    expect((await step.read(logprob))[0]).toBeCloseTo(2.5 - total, 5)
  }))

test('advancing puts the chosen tokens where the next step reads them', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const rows = state(step, 2, {}, [4, 7])
    advanceTokens(step, rows, step.upload('u32', [2], [11, 12]))
    expect([...(await step.read(rows.ids))]).toEqual([11, 12])
    expect([...(await step.read(rows.position))]).toEqual([5, 8])
    expect([...(await step.read(rows.history))]).toEqual([0, 0, 0, 0, 0, 11, 0, 0, ...new Array(8).fill(0)])
    await step.checkGuards()
  }))

test('settings out of range are refused by name', () => {
  expect(() => samplingSettings({ temperature: -1 })).toThrow('temperature -1')
  expect(() => samplingSettings({ topP: 0 })).toThrow('topP 0')
  expect(() => samplingSettings({ topK: 1.5 })).toThrow('topK 1.5')
  expect(() => samplingSettings({ minP: 2 })).toThrow('minP 2')
  expect(() => samplingSettings({ repetitionPenalty: 0 })).toThrow('repetitionPenalty 0')
})

test('the luckiest draw of all is finite: a token without a chance stays unlikely', () =>
  withoutLeaks(async () => {
    const width = 4096
    // One of 2^24 draws has all bits set, and half more would round to a uniform number of 1, whose luck is infinite.
    let [seed, token] = [0, -1]
    for (; token < 0; seed++)
      for (let c = 0; c < width && token < 0; c++) if (uniform64(seed, c) === 1 - 2 ** -24) token = c
    seed--
    expect(uniform64(seed, token)).toBeLessThan(1)
    const logits = new Float32Array(width).fill(5)
    logits[token] = -50
    using step = gpu.step()
    const x = step.upload('f32', [1, width], logits)
    const row = { ...state(step, 1, { temperature: 1 }), seeds: step.upload('u32', [1], [seed]) }
    const { chosen } = chooseTokens(step, x, row)
    expect((await step.read(chosen))[0]).not.toBe(token)
    expect((await step.read(sample(step, x, { seed })))[0]).not.toBe(token)
  }))
