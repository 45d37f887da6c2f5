import { expect, test } from 'vitest'
import { productTiers, productWork, usualTier } from '../../src/kernels/product.ts'
import { tuneProducts } from '../../src/kernels/tune.ts'
import { Tuning } from '../../src/runtime/tuning.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

test('tuning times every kernel that is right and chooses among them', () =>
  withoutLeaks(async () => {
    const before = gpu.tuning.toJSON()
    const found = await tuneProducts(gpu, { sizes: [36] })
    expect(found.map(({ work }) => work)).toContain(productWork('f32', false, true, 36, 36))
    for (const { work, chosen, ms } of found) {
      const dtype = work.includes('f16') ? 'f16' : 'f32'
      expect(Object.keys(ms)).toEqual(productTiers(gpu, dtype))
      expect(ms[chosen]).toBeGreaterThan(0)
      const usual = usualTier(gpu, 36, 36)
      expect(gpu.tuning.choice(work, productTiers(gpu, dtype), usual)).toBe(chosen)
      gpu.tuning.choose(work, undefined)
    }
    expect(gpu.tuning.toJSON()).toEqual(before)
  }))

test('a stored choice that is not offered any more is ignored', () => {
  const tuning = new Tuning()
  tuning.choose('work', 'gone')
  expect(tuning.choice('work', ['a', 'b'], 'b')).toBe('b')
  tuning.choose('work', 'a')
  expect(tuning.choice('work', ['a', 'b'], 'b')).toBe('a')
  expect(JSON.stringify(tuning)).toBe('{"work":"a"}')
})
