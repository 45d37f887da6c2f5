import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { openModel } from '../../src/models/open-model.ts'
import { drawBatch } from '../../src/train/batch.ts'
import { type DataCapability, dataCapability, encodingOf } from '../../src/train/data-capability.ts'

const teacher = join(import.meta.dirname, '../../models/tiny-teacher')
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-test-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function capabilityOf(file: string, text: string, heldOut = 0.2): Promise<DataCapability> {
  await using model = await openModel(teacher)
  const data = join(folder, file)
  await writeFile(data, text)
  return dataCapability({ name: 'sums', data, encoding: encodingOf(model), length: 16, heldOut })
}

const sums = (order: readonly number[]) =>
  order.map((i) => JSON.stringify({ prompt: `+${i}+1=`, completion: `${i + 1}` })).join('\n')
const key = ({ ids }: { ids: ArrayLike<number> }) => Array.from(ids).join()

test('completions: weights on the answer alone, padding at the end, and nothing held out is trained', async () => {
  const order = Array.from({ length: 50 }, (_, i) => i + 10)
  const capability = await capabilityOf('sums.jsonl', sums([...order, 10, 10]))
  expect([capability.metric, capability.unit]).toEqual(['exact_match', 'item'])
  const items = new Set(capability.items().map(key))
  expect(items.size).toBe(10)
  expect(capability.items()).toHaveLength(10)
  expect(capability.train.some((row) => items.has(key(row)))).toBe(false)
  expect(capability.example.prompt).toMatch(/^\+\d\d\+1=$/)
  expect(capability.example.answer).toMatch(/^\d\d/)
  // Six characters of prompt, two of answer and the end: eight inputs, the last three of which are learned.
  const batch = drawBatch(capability, new Random(1), 3, 12)
  expect([...batch.used]).toEqual([8, 8, 8])
  expect(batch.total).toBe(9)
  expect([...batch.weights.subarray(0, 12)]).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0])
  // The split hangs on the content, not on the order of the file.
  const turned = await capabilityOf('turned.jsonl', sums([...order].reverse()))
  expect(new Set(turned.items().map(key))).toEqual(items)
  await expect(capabilityOf('one.jsonl', sums([1]))).rejects.toThrow('Cannot hold out 1 of 1 different records')
})

test('texts: every token counts, and rows are what is held out', async () => {
  const text = Array.from({ length: 30 }, (_, i) => `the whale number ${i} swims on.`).join('\n')
  const capability = await capabilityOf('book.txt', text.replaceAll('\n', ' '))
  expect([capability.metric, capability.unit]).toEqual(['next_token_accuracy', 'token'])
  const [row] = capability.train
  expect(row.weights.length).toBe(16)
  expect(Array.from(row.weights).every((weight) => weight === 1)).toBe(true)
  const all = capability.train.length + capability.items().length
  expect(Math.abs(capability.items().length - 0.2 * all)).toBeLessThan(2)
})
