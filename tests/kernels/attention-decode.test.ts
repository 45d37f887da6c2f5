import { expect, test } from 'vitest'
import type { FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { sizeOf } from '../../src/core/shape.ts'
import { attention } from '../../src/kernels/attention.ts'
import { attentionDecode, kvAppend } from '../../src/kernels/attention-decode.ts'
import type { Step } from '../../src/runtime/step.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { attentionOracle } from '../reference/attention.ts'

interface Case {
  readonly name: string
  readonly dtype?: FloatType
  /** Keys of each row before the new tokens. */
  readonly before: readonly number[]
  readonly tokens: number
  readonly heads: number
  readonly groups: number
  readonly size: number
  readonly pageSize: number
  /** Pages of each row. */
  readonly pages: number
  readonly window?: number
}

const cases: Case[] = [
  { name: 'one page a row', before: [4, 0, 11], tokens: 1, heads: 4, groups: 2, size: 8, pageSize: 12, pages: 1 },
  { name: 'pages of 16', before: [150, 3], tokens: 1, heads: 6, groups: 2, size: 16, pageSize: 16, pages: 10 },
  { name: 'three tokens', before: [61, 130, 0], tokens: 3, heads: 5, groups: 1, size: 12, pageSize: 64, pages: 3 },
  {
    name: 'four tokens, a head of 80',
    before: [17],
    tokens: 4,
    heads: 2,
    groups: 2,
    size: 80,
    pageSize: 128,
    pages: 1,
  },
  { name: 'more than one workgroup', before: [700], tokens: 2, heads: 2, groups: 1, size: 4, pageSize: 32, pages: 23 },
  { name: 'a window', before: [150, 3], tokens: 2, heads: 4, groups: 2, size: 8, pageSize: 16, pages: 10, window: 70 },
  { name: 'f16', dtype: 'f16', before: [70, 3], tokens: 2, heads: 4, groups: 2, size: 8, pageSize: 16, pages: 5 },
]

/** A cache whose pages lie in no order, filled with what came before, and the new tokens' q, k and v. */
function prepare(step: Step, { dtype = 'f32', before, tokens, heads, groups, size, pageSize, pages }: Case) {
  const batch = before.length
  const keys = pageSize * pages
  const random = new Random(5)
  const count = batch * pages
  const table = Array.from({ length: count }, (_, i) => (i * 7 + 3) % count)
  // Seven shares no factor with these counts, or the pages would not be all different.
  expect(new Set(table).size).toBe(count)
  const values = (...shape: number[]) => {
    const tensor = step.upload(dtype, shape, random.normals(sizeOf(shape)))
    return { shape, tensor }
  }
  const history = { k: values(batch, keys, groups, size), v: values(batch, keys, groups, size) }
  const fresh = { k: values(batch, tokens, groups, size), v: values(batch, tokens, groups, size) }
  const shape = [count, pageSize, groups, size]
  const cache = {
    k: step.filled(dtype, shape, 9),
    v: step.filled(dtype, shape, 9),
    pageTable: step.upload('u32', [batch, pages], table),
    position: step.upload('u32', [batch], before),
  }
  const empty = { ...cache, position: step.filled('u32', [batch], 0) }
  kvAppend(step, empty, history.k.tensor, history.v.tensor)
  kvAppend(step, cache, fresh.k.tensor, fresh.v.tensor)
  return { q: values(batch, tokens, heads, size), history, fresh, cache, table, keys, batch }
}

for (const item of cases)
  test(`attentionDecode, ${item.name}`, () =>
    withoutLeaks(async () => {
      if (item.dtype === 'f16' && !gpu.capabilities.f16) return
      const { before, tokens, groups, size, window = Infinity } = item
      using step = gpu.step()
      const { q, history, fresh, cache, keys, batch } = prepare(step, item)
      const y = attentionDecode(step, q.tensor, cache, { window: item.window })
      const read = async ({ tensor, shape }: typeof q) => ({ shape, data: Float64Array.from(await step.read(tensor)) })
      const all = { k: await read(history.k), v: await read(history.v) }
      const width = groups * size
      for (const side of ['k', 'v'] as const) {
        const added = (await read(fresh[side])).data
        for (let b = 0; b < batch; b++)
          all[side].data.set(
            added.subarray(b * tokens * width, (b + 1) * tokens * width),
            (b * keys + before[b]) * width,
          )
      }
      const seen = (b: number, t: number, j: number) => j <= before[b] + t && j > before[b] + t - window
      const want = attentionOracle(await read(q), all.k, all.v, seen)
      expectClose('y', await step.read(y), want.data, item.dtype === 'f16' ? 2e-3 : 4e-6)
      await step.checkGuards()
    }))

test('decoding token by token equals one pass over all of them', async () => {
  using step = gpu.step()
  const random = new Random(8)
  const [tokens, heads, groups, size] = [21, 4, 2, 8]
  const make = (count: number) => random.normals(tokens * count * size)
  const values = { q: make(heads), k: make(groups), v: make(groups) }
  const whole = (name: keyof typeof values, count: number) => step.upload('f32', [1, tokens, count, size], values[name])
  const want = await step.read(attention(step, whole('q', heads), whole('k', groups), whole('v', groups)))
  const cache = {
    k: step.filled('f32', [1, 24, groups, size], 0),
    v: step.filled('f32', [1, 24, groups, size], 0),
    pageTable: step.upload('u32', [1, 1], [0]),
  }
  for (let t = 0; t < tokens; t++) {
    const at = { ...cache, position: step.upload('u32', [1], [t]) }
    const one = (name: keyof typeof values, count: number) =>
      step.upload('f32', [1, 1, count, size], values[name].subarray(t * count * size, (t + 1) * count * size))
    kvAppend(step, at, one('k', groups), one('v', groups))
    const y = attentionDecode(step, one('q', heads), at)
    expectClose(`token ${t}`, await step.read(y), want.subarray(t * heads * size, (t + 1) * heads * size), 4e-6)
  }
})

test('what lies past the page table is dropped, and what does not fit is refused', async () => {
  using step = gpu.step()
  const zeros = (...shape: number[]) => step.filled('f32', shape, 0)
  const cache = {
    k: zeros(1, 4, 1, 4),
    v: zeros(1, 4, 1, 4),
    pageTable: step.upload('u32', [1, 1], [0]),
    position: step.upload('u32', [1], [3]),
  }
  kvAppend(step, cache, step.filled('f32', [1, 2, 1, 4], 5), step.filled('f32', [1, 2, 1, 4], 6))
  expect([...(await step.read(cache.k))]).toEqual([...Array(12).fill(0), ...Array(4).fill(5)])
  expect([...(await step.read(cache.v))]).toEqual([...Array(12).fill(0), ...Array(4).fill(6)])
  expect(() => kvAppend(step, cache, zeros(1, 2, 2, 4), zeros(1, 2, 2, 4))).toThrow(
    'Cannot kvAppend x [1,2,2,4]: the cache of keys must be [1,4,2,4], got [1,4,1,4]',
  )
  expect(() => attentionDecode(step, zeros(2, 1, 1, 4), cache)).toThrow('position must be [2], got [1]')
  expect(() => attentionDecode(step, zeros(1, 1, 1, 4), cache, { window: 0 })).toThrow('at least 1, got 0')
})
