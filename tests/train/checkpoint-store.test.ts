import { spawn } from 'node:child_process'
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { CheckpointStore } from '../../src/train/checkpoint-store.ts'
import { EarlyStop } from '../../src/train/early-stop.ts'
import { TrainLog } from '../../src/train/train-log.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-store-'))
})
afterAll(() => rm(folder, { recursive: true }))

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (content: Uint8Array | undefined) => new TextDecoder().decode(content)

test('the newest and the best are kept, and a later start replaces what came after', async () => {
  const store = new CheckpointStore(join(folder, 'rotated'), { keep: 2 })
  expect(await store.latest()).toBeUndefined()
  const scores = [undefined, 3, 1, 2, undefined, 1]
  for (const [step, score] of scores.entries()) await store.save(step, bytes(`state ${step}`), score)
  expect((await store.entries()).map(({ step }) => step)).toEqual([2, 4, 5])
  expect((await readdir(store.folder)).sort()).toEqual([
    'index.json',
    ...[2, 4, 5].map((step) => `step-0000000${step}.safetensors`),
  ])
  expect(text((await store.latest())?.content)).toBe('state 5')
  expect((await store.best())?.step).toBe(2)
  await expect(store.save(6, bytes('x'), Number.NaN)).rejects.toThrow('its score is NaN')
  await store.save(3, bytes('another state 3'))
  expect((await store.entries()).map(({ step }) => step)).toEqual([2, 3])
})

test('a damaged file is passed over for the one before, a damaged index is named', async () => {
  const store = new CheckpointStore(join(folder, 'damaged'))
  await store.save(1, bytes('one'), 5)
  await store.save(2, bytes('two'), 4)
  await writeFile(join(store.folder, 'step-00000002.safetensors'), 'tw0')
  expect((await store.latest())?.step).toBe(1)
  expect((await store.best())?.step).toBe(1)
  await rm(join(store.folder, 'step-00000001.safetensors'))
  expect(await store.latest()).toBeUndefined()
  await writeFile(join(store.folder, 'index.json'), '{"version":1,"checkpoints":[{"step":1,"file":"../x"}]}')
  await expect(store.latest()).rejects.toThrow('index.json')
})

test('killed at any moment, a whole checkpoint is there, and the next run sweeps what was left', async () => {
  const where = join(folder, 'killed')
  const script = join(folder, 'save.ts')
  const module = join(import.meta.dirname, '../../src/train/checkpoint-store.ts')
  await writeFile(
    script,
    `import { CheckpointStore } from ${JSON.stringify(module)}
const store = new CheckpointStore(${JSON.stringify(where)}, { keep: 2 })
const from = (await store.latest())?.step ?? 0
for (let step = from + 1; ; step++) {
  await store.save(step, new Uint8Array(300_000).fill(step % 251), -step)
  if (step === from + 2) process.stdout.write('going\\n')
}`,
  )
  const store = new CheckpointStore(where)
  let before = 0
  for (const wait of [0, 3, 7, 13, 29]) {
    const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await new Promise((resolve) => setTimeout(resolve, wait))
    const ended = new Promise((resolve) => child.once('close', resolve))
    child.kill('SIGKILL')
    await ended
    const found = await store.latest()
    expect(found!.step).toBeGreaterThan(before)
    before = found!.step
    expect(found!.content.length).toBe(300_000)
    expect(found!.content.every((byte) => byte === before % 251)).toBe(true)
    // The newest that the index names is the one that was found: none of its files is damaged.
    expect((await store.entries()).at(-1)!.step).toBe(before)
  }
  await writeFile(join(where, 'step-00000007.safetensors.99.part'), 'torn')
  await store.save(before + 1, bytes('end'))
  expect((await readdir(where)).filter((name) => name.endsWith('.part'))).toEqual([])
}, 30_000)

test('a log has each step once: lines of the checkpoint’s step and later, and a torn one, are cut off', async () => {
  const path = join(folder, 'deep', 'log.jsonl')
  const log = await TrainLog.resume(path, 0)
  for (let step = 0; step < 5; step++) await log.add({ step, loss: step / 2 })
  await appendFile(path, '{"step": 5, "lo')
  const again = await TrainLog.resume(path, 3)
  await again.add({ step: 3, loss: 9 })
  const steps = (await readFile(path, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { step: number }).step)
  expect(steps).toEqual([0, 1, 2, 3])
})

test('early stopping counts scores without improvement, and goes on from its state', () => {
  const stop = new EarlyStop(2)
  expect([3, 2, 2].map((score) => stop.add(score))).toEqual([false, false, false])
  expect(new EarlyStop(2, stop.save()).add(2.5)).toBe(true)
  expect(new EarlyStop(2, stop.save()).add(1)).toBe(false)
  const never = new EarlyStop(0)
  for (let i = 0; i < 9; i++) expect(never.add(1)).toBe(false)
})
