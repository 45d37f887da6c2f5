import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { chooseTokens, samplingSettings } from '../../src/kernels/sampler.ts'
import { maskWords, restrictTokens } from '../../src/kernels/token-mask.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

/** A mask of each row, and the tokens that it leaves. */
function masks(rows: number, columns: number, random: Random) {
  const words = maskWords(columns)
  const bits = new Uint32Array(rows * words)
  const left = Array.from({ length: rows }, (_, row) => {
    const ids = new Set(Array.from({ length: 1 + random.integer(columns) }, () => random.integer(columns)))
    for (const id of ids) bits[row * words + (id >> 5)] |= 1 << (id & 31)
    return ids
  })
  return { bits, left }
}

test.each([
  [1, 1, 'f32'],
  [3, 37, 'f32'],
  [2, 5000, 'f32'],
  [5, 2048, 'f16'],
] as const)('%i × %i, %s: what has a bit stays, the rest is the lowest', (rows, columns, dtype) =>
  withoutLeaks(async () => {
    const random = new Random(5)
    const { bits, left } = masks(rows, columns, random)
    using step = gpu.step()
    const logits = step.upload(dtype, [rows, columns], random.normals(rows * columns))
    const mask = step.upload('u32', [rows, maskWords(columns)], bits)
    const [before, after] = await Promise.all([step.read(logits), step.read(restrictTokens(step, logits, mask))])
    const want = before.map((value, i) =>
      left[Math.floor(i / columns)].has(i % columns) ? value : Math.fround(-3.4e38),
    )
    expect([...after]).toEqual([...want])
    await step.checkGuards()
  }),
)

test('no sampling chooses a token without a bit, at any temperature', () =>
  withoutLeaks(async () => {
    const [rows, columns] = [64, 300]
    const random = new Random(6)
    const { bits, left } = masks(rows, columns, random)
    const kinds = [
      {},
      { temperature: 1 },
      { temperature: 9999 },
      { temperature: 1e-6, topK: 3 },
      { temperature: 50, topP: 0.9 },
    ]
    using step = gpu.step()
    // The tokens that are taken away are the likeliest.
    const values = random
      .normals(rows * columns)
      .map((value, i) => value + (left[Math.floor(i / columns)].has(i % columns) ? 0 : 30))
    const logits = step.upload('f16', [rows, columns], values)
    const mask = step.upload('u32', [rows, maskWords(columns)], bits)
    const state = {
      ids: step.filled('u32', [rows, 1], 0),
      position: step.filled('u32', [rows], 0),
      history: step.filled('u32', [rows, 8], 0),
      settings: step.upload(
        'f32',
        [rows, 5],
        Array.from({ length: rows }, (_, i) => samplingSettings(kinds[i % kinds.length])).flat(),
      ),
      seeds: step.upload(
        'u32',
        [rows],
        Uint32Array.from({ length: rows }, (_, i) => i),
      ),
    }
    const { chosen, logprob } = chooseTokens(step, restrictTokens(step, logits, mask), state)
    const ids = await step.read(chosen)
    expect([...ids].filter((id, row) => !left[row].has(id))).toEqual([])
    // Log-probabilities are those among the tokens that are left.
    const held = await step.read(logits)
    for (const [row, value] of (await step.read(logprob)).entries()) {
      const mass = [...left[row]].reduce((sum, id) => sum + Math.exp(held[row * columns + id]), 0)
      expect(value).toBeCloseTo(held[row * columns + ids[row]] - Math.log(mass), 3)
    }
  }))

test('a mask of another size is refused', () => {
  using step = gpu.step()
  const logits = step.filled('f32', [2, 40], 0)
  expect(() => restrictTokens(step, logits, step.filled('u32', [2, 1], 0))).toThrow('mask must be [2,2], got [2,1]')
})
