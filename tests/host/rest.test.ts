import { expect, test } from 'vitest'
import { resting } from '../../src/host/rest.ts'

test('resting gives what was waited for, and does not turn afterwards', async () => {
  const later = (ms: number) => new Promise<number>((resolve) => setTimeout(() => resolve(ms), ms))
  expect(await Promise.all([resting(later(5)), resting(later(20))])).toEqual([5, 20])
  await expect(resting(Promise.reject(new Error('lost')))).rejects.toThrow('lost')
  expect(await resting(later(1)), 'again after a pause').toBe(1)
})

test('resting leaves the processor to others', async () => {
  const before = process.cpuUsage()
  // Something that asks on every turn, as Dawn does.
  let done = false
  const asking = () => {
    if (!done) setImmediate(asking)
  }
  asking()
  await resting(new Promise((resolve) => setTimeout(resolve, 300)))
  done = true
  const { user, system } = process.cpuUsage(before)
  expect((user + system) / 1000, 'ms of processor time in 300 ms').toBeLessThan(200)
})
