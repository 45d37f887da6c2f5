import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type ByteSource, memorySource } from '../../src/formats/byte-source.ts'
import { canDequantize, dequantizeGgml } from '../../src/formats/ggml-quants.ts'
import { type GgmlType, ggmlTypes } from '../../src/formats/ggml-types.ts'
import { parseGguf, readGguf, readGgufRows } from '../../src/formats/gguf.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { FileSource } from '../../src/host/files.ts'

const golden = join(import.meta.dirname, '../oracles/golden')
const small = new Uint8Array(readFileSync(join(golden, 'small.gguf')))
const quants = parseSafetensors(new Uint8Array(readFileSync(join(golden, 'ggml-quants.safetensors')))).tensors

test.each([...['F32', 'F16', 'BF16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K']] as GgmlType[])(
  '%s blocks stand for the values that ggml gives them, bit for bit',
  (type) => {
    const want = toFloat32(quants.get(`${type}/values`)!)
    const got = dequantizeGgml(type, quants.get(`${type}/bytes`)!.data, want.length)
    expect(want.length).toBeGreaterThanOrEqual(6)
    expect(got).toEqual(want)
    expect(want.some((value) => Number.isFinite(value) && value !== 0)).toBe(true)
  },
)

test('a type without a dequantiser is named, and so are bytes of another size', () => {
  expect(canDequantize('Q2_K')).toBe(false)
  expect(() => dequantizeGgml('Q2_K', new Uint8Array(84), 256)).toThrow('Cannot dequantise Q2_K: supported are F32')
  expect(() => dequantizeGgml('Q8_0', new Uint8Array(33), 32)).toThrow('they take 34 bytes, got 33')
})

test('reads every kind of metadata that ggml’s own library writes', () => {
  const { metadata, version, alignment } = parseGguf(small)
  expect([version, alignment]).toEqual([3, 32])
  expect(Object.fromEntries(metadata)).toEqual({
    'general.architecture': 'llama',
    'a.u8': 255,
    'a.i8': -128,
    'a.u16': 65535,
    'a.i16': -32768,
    'a.u32': 4294967295,
    'a.i32': -2147483648,
    'a.f32': Math.fround(0.1),
    'a.u64': 2n ** 64n - 1n,
    'a.i64': -5,
    'a.f64': 0.1,
    'a.bool': true,
    'a.string': '\ufeffnaïve 🙂',
    'a.strings': ['', 'a', 'é'],
    'a.integers': Int32Array.of(1, -2, 3),
    'a.floats': Float32Array.of(0.5, -0.25),
    'a.bools': [true, false],
  })
})

test('reads tensors whole or a window of rows at a time, from memory and from a file', async () => {
  await using file = await FileSource.open(join(golden, 'small.gguf'))
  for (const source of [memorySource(small), file] as ByteSource[]) {
    const { tensors } = await readGguf(source)
    expect([...tensors.values()].map(({ name, type, shape }) => [name, type, shape])).toEqual([
      ['plain', 'F32', [3, 64]],
      ['vector', 'F32', [5]],
      ['halves', 'F16', [3, 7]],
      ['packed', 'Q8_0', [3, 64]],
    ])
    expect([...(await readGgufRows(source, tensors.get('vector')!))]).toEqual([0, 1, 2, 3, 4])
    const plain = await readGgufRows(source, tensors.get('plain')!)
    for (const [name, columns] of [
      ['halves', 7],
      ['packed', 64],
    ] as const) {
      const tensor = tensors.get(name)!
      const all = await readGgufRows(source, tensor)
      expect(await readGgufRows(source, tensor, 1, 2)).toEqual(all.subarray(columns))
      for (let i = 0; i < all.length; i++)
        expect(Math.abs(all[i] - plain[Math.floor(i / columns) * 64 + (i % columns)])).toBeLessThan(0.02)
    }
    await expect(readGgufRows(source, tensors.get('packed')!, 2, 2)).rejects.toThrow('rows 2 to 4 of packed: it has 3')
    await expect(source.read(source.length - 1, 2)).rejects.toThrow('Cannot read 2 bytes')
  }
})

test('a header longer than the first window is read in larger ones, and only the header is read', async () => {
  const text = 3 << 20
  const head = new Uint8Array(24 + 8 + 1 + 4 + 8)
  const view = new DataView(head.buffer)
  head.set(new TextEncoder().encode('GGUF'))
  view.setUint32(4, 3, true)
  view.setBigUint64(16, 1n, true)
  view.setBigUint64(24, 1n, true)
  head[32] = 0x61
  view.setUint32(33, 8, true)
  view.setBigUint64(37, BigInt(text), true)
  const bytes = new Uint8Array(head.length + text + (8 << 20)).fill(0x62)
  bytes.set(head)
  let most = 0
  const inner = memorySource(bytes)
  const source: ByteSource = {
    length: bytes.length,
    read(offset, length) {
      most = Math.max(most, offset + length)
      return inner.read(offset, length)
    },
  }
  expect((await readGguf(source)).metadata.get('a')).toBe('b'.repeat(text))
  expect(most).toBe(4 << 20)
})

test('the table of types is that of ggml', () => {
  const numbers = Object.values(ggmlTypes).map(([number]) => number)
  expect(new Set(numbers).size).toBe(numbers.length)
  expect(ggmlTypes.Q6_K).toEqual([14, 256, 210])
})
