import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type ByteSource, memorySource } from '../../src/formats/byte-source.ts'
import { parseSafetensors, readSafetensorsHeader, writeSafetensors } from '../../src/formats/safetensors.ts'
import { parseShardIndex, planShards, SafetensorsFiles } from '../../src/formats/shards.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'

const golden = new Uint8Array(readFileSync(join(import.meta.dirname, '../oracles/golden/dtypes.safetensors')))

test('a file of every dtype is written byte for byte as the format’s own library writes it', () => {
  const { tensors, metadata } = parseSafetensors(golden)
  expect(tensors.size).toBe(21)
  expect(writeSafetensors(new Map([...tensors].reverse()), metadata)).toEqual(golden)
})

test('bfloat16 rounds to nearest even, and comes back', () => {
  const { tensors } = parseSafetensors(golden)
  const source = toFloat32(tensors.get('bfloat16.source')!)
  expect(cpuTensor('BF16', [6], source)).toEqual(tensors.get('bfloat16.rounded'))
  expect(toFloat32(cpuTensor('BF16', [2], [1.5, Number.NaN]))).toEqual(Float32Array.of(1.5, Number.NaN))
})

test('a source is read as far as its header says, and no further', async () => {
  let read = 0
  const source: ByteSource = {
    length: golden.length,
    async read(offset, length) {
      read = Math.max(read, offset + length)
      return golden.subarray(offset, offset + length)
    },
  }
  const { entries } = await readSafetensorsHeader(source)
  expect(read).toBe(Math.min(...[...entries.values()].map(({ offset }) => offset)))
  const file = await SafetensorsFiles.single(source)
  const whole = parseSafetensors(golden).tensors.get('float16')!
  expect(await file.read('float16')).toEqual(whole)
  expect(await file.read('float16', 1, 1)).toEqual({ dtype: 'F16', shape: [1, 3], data: whole.data.subarray(6) })
  expect(await file.weights().rows('bfloat16.rounded', 0, 1)).toHaveLength(6)
  await expect(file.read('float16', 1, 2)).rejects.toThrow('rows 1 to 3 of float16: it has 2')
  await expect(file.read('missing')).rejects.toThrow('no such tensor')
})

const tensors = new Map<string, CpuTensor>(
  ['b', 'a', 'c', 'd'].map((name, i) => [name, cpuTensor('F32', [i + 1, 4], new Float32Array(4 * i + 4).fill(i))]),
)
const outlines = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }))

test('shards fill up in order, and what is written is read back', async () => {
  expect(planShards(outlines)).toEqual({ files: new Map([['model.safetensors', outlines]]) })
  const { files, index } = planShards(outlines, 50)
  expect([...files].map(([file, list]) => [file, list.map(({ name }) => name)])).toEqual([
    ['model-00001-of-00003.safetensors', ['b', 'a']],
    ['model-00002-of-00003.safetensors', ['c']],
    ['model-00003-of-00003.safetensors', ['d']],
  ])
  expect(index).toBe(`{
  "metadata": {
    "total_parameters": 40,
    "total_size": 160
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "c": "model-00002-of-00003.safetensors",
    "d": "model-00003-of-00003.safetensors"
  }
}
`)
  const open = async (file: string) =>
    memorySource(writeSafetensors(new Map(files.get(file)!.map(({ name }) => [name, tensors.get(name)!]))))
  const read = await SafetensorsFiles.sharded(JSON.parse(index!), open)
  for (const [name, tensor] of tensors) expect(await read.read(name)).toEqual(tensor)
  expect([...(await read.weights().rows('c', 2, 1))]).toEqual([2, 2, 2, 2])

  const change = (weights: object) => ({ weight_map: { ...JSON.parse(index!).weight_map, ...weights } })
  await expect(SafetensorsFiles.sharded(change({ e: 'model-00001-of-00003.safetensors' }), open)).rejects.toThrow(
    'holds e, which it does not',
  )
  await expect(SafetensorsFiles.sharded(change({ a: 'model-00002-of-00003.safetensors' }), open)).rejects.toThrow(
    SyntaxError,
  )
  const broken = async () => memorySource(new Uint8Array(3))
  await expect(SafetensorsFiles.sharded(JSON.parse(index!), broken)).rejects.toThrow('model-00001-of-00003.safetensors')
})

test.each([
  [null, 'no weight_map'],
  [{ weight_map: [] }, 'no weight_map'],
  [{ weight_map: {} }, 'is empty'],
  [{ weight_map: { a: '../model.safetensors' } }, 'not a safetensors file beside it'],
  [{ weight_map: { a: '/etc/passwd' } }, 'not a safetensors file beside it'],
  [{ weight_map: { a: '..safetensors' } }, 'not a safetensors file beside it'],
  [{ weight_map: { a: 5 } }, 'not a safetensors file beside it'],
])('the index %j is refused', (json, reason) => {
  expect(() => parseShardIndex(json)).toThrow(SyntaxError)
  expect(() => parseShardIndex(json)).toThrow(reason)
})
