import { afterAll, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { WorkerPool } from '../../src/host/worker-pool.ts'
import { finishSite, type SiteResult } from '../../src/profile/finish-site.ts'

const pool = new WorkerPool(new URL('../../src/profile/site-worker.ts', import.meta.url), 2)
afterAll(() => pool[Symbol.asyncDispose]())

function site(name: string, count = 40) {
  const random = new Random(name.length)
  const d = 12
  const scatter = new Float64Array(d * d)
  for (let row = 0; row < 40; row++) {
    const x = random.normals(d)
    for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) scatter[i * d + j] += x[i] * x[j]
  }
  return { name, centred: true, state: { count, mean: new Float64Array(d), scatter } }
}

test('threads answer as this one does, and their inputs move', async () => {
  const names = ['a', 'bb', 'ccc', 'dddd', 'eeeee']
  const expected = names.map((name) => finishSite(site(name)))
  const inputs = names.map((name) => site(name))
  const results = await Promise.all(
    inputs.map((input) => pool.run<SiteResult>(input, [input.state.mean.buffer, input.state.scatter.buffer])),
  )
  expect(results).toEqual(expected)
  for (const { state } of inputs) expect(state.scatter.length).toBe(0)
})

test('errors of a thread, and of what cannot move, reach the caller; the threads go on', async () => {
  const failed: Error = await pool.run<never>(site('few', 1)).catch((error) => error)
  expect(failed).toBeInstanceOf(RangeError)
  expect(failed.message).toContain('it needs two or more')
  await expect(pool.run(() => 0)).rejects.toThrow('could not be cloned')
  expect(await pool.run(site('a'))).toEqual(finishSite(site('a')))
})

test('tasks of a pool that ends fail, those in line too', async () => {
  const ending = new WorkerPool(new URL('../../src/profile/site-worker.ts', import.meta.url), 1)
  const settled = Promise.allSettled([ending.run(site('a')), ending.run(site('bb'))])
  await ending[Symbol.asyncDispose]()
  expect((await settled).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
})
