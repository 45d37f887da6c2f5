import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  blockScales,
  dequantizeBitsandbytes,
  type Nf4Matrix,
  readBitsandbytes,
  writeBitsandbytes,
} from '../../src/formats/bitsandbytes.ts'
import { quantizeNf4 } from '../../src/formats/nf4.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { type CpuTensor, cpuTensor } from '../../src/formats/tensor.ts'

const path = join(import.meta.dirname, '../oracles/golden/bitsandbytes.safetensors')
const { tensors } = parseSafetensors(new Uint8Array(readFileSync(path)))
const { matrices, rest } = readBitsandbytes(tensors)

test('finds the matrices of a state dict and leaves the rest', () => {
  expect([...matrices].map(([name, { type, shape }]) => [name, type, shape]).sort()).toEqual([
    ['int8.weight', 'int8', [6, 16]],
    ['nested.weight', 'nf4', [40, 448]],
    ['plain.weight', 'nf4', [6, 50]],
    ['tiny.weight', 'nf4', [8, 64]],
  ])
  expect([...rest.keys()].sort()).toEqual([
    ...['tiny.bias', 'values/int8', 'values/nested', 'values/plain', 'values/tiny'],
  ])
  const nested = matrices.get('nested.weight') as Nf4Matrix
  expect(nested).toMatchObject({
    blockSize: 64,
    dtype: 'bfloat16',
    absmax: { blockSize: 256, offset: 2.650167465209961 },
  })
  expect(blockScales(nested)).toHaveLength(280)
})

test('values are those of bitsandbytes, bit for bit in the dtype of the layer', () => {
  for (const [name, dtype] of [
    ['plain', 'F32'],
    ['nested', 'BF16'],
    ['tiny', 'F16'],
    ['int8', 'F32'],
  ] as const) {
    const matrix = matrices.get(`${name}.weight`)!
    const want = tensors.get(`values/${name}`)!
    expect(cpuTensor(dtype, matrix.shape, dequantizeBitsandbytes(matrix)).data, name).toEqual(want.data.slice())
  }
})

test('tensors are written as bitsandbytes writes them, Python’s floats too', () => {
  for (const [name, matrix] of matrices)
    for (const [key, tensor] of writeBitsandbytes(name, matrix)) {
      const want = tensors.get(key)!
      expect(tensor, key).toEqual({ ...want, data: want.data.slice() })
    }
  const state = (offset: number) => {
    const matrix = matrices.get('tiny.weight') as Nf4Matrix
    const absmax = { ...(matrix.absmax as object), offset } as Nf4Matrix['absmax']
    const written = writeBitsandbytes('a.weight', { ...matrix, absmax })
    return new TextDecoder()
      .decode(written.get('a.weight.quant_state.bitsandbytes__nf4')!.data)
      .split('nested_offset": ')[1]
  }
  // What repr gives in Python 3.
  expect([0.0001, 0.00001, 1.5e-7, 3, -0, 1e16, 1e15, 1.25e-10, 2e100].map(state)).toEqual([
    ...['0.0001}', '1e-05}', '1.5e-07}', '3.0}', '-0.0}', '1e+16}', '1000000000000000.0}', '1.25e-10}', '2e+100}'],
  ])
})

test('what this project quantises is a file of bitsandbytes', () => {
  const values = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i * i))
  const { codes, scales, shape } = quantizeNf4(values, [2, 128])
  const matrix: Nf4Matrix = { type: 'nf4', shape, codes, blockSize: 64, dtype: 'float32', absmax: scales }
  const read = readBitsandbytes(writeBitsandbytes('x.weight', matrix))
  expect(read.matrices.get('x.weight')).toEqual(matrix)
  expect(read.rest.size).toBe(0)
})

const state = (text: string) => {
  const bytes = new TextEncoder().encode(text)
  return cpuTensor('U8', [bytes.length], bytes)
}
const key = 'tiny.weight.quant_state.bitsandbytes__nf4'
const json = new TextDecoder().decode(tensors.get(key)!.data)

test.each([
  [{ 'x.weight.quant_state.bitsandbytes__fp4': state('{}') }, 'quantised as fp4; supported are nf4 and int8'],
  [{ 'tiny.weight': undefined }, 'tiny.weight is missing'],
  [{ 'tiny.weight.absmax': undefined }, 'tiny.weight.absmax is missing'],
  [{ 'tiny.weight.absmax': cpuTensor('F32', [8], new Float32Array(8)) }, 'must be U8 with 8 values'],
  [{ 'tiny.weight.quant_map': cpuTensor('F32', [16], new Float32Array(16)) }, 'not that of NF4'],
  [{ [key]: state('{"a":') }, 'not valid JSON'],
  [{ [key]: state('[]') }, 'no object'],
  [{ [key]: state(json.replace('[8, 64]', '[9007199254740991, 64]')) }, 'must be U8 with'],
  [{ [key]: state(json.replace('[8, 64]', '[-8, 64]')) }, 'it must be two sizes'],
  [{ [key]: state(json.replace('"blocksize": 64', '"blocksize": 0')) }, 'blocksize is 0'],
  [{ [key]: state(json.replace('"blocksize": 64', '"blocksize": 48')) }, 'blocksize is 48'],
  [{ [key]: state(json.replace('float16', 'float8')) }, 'dtype is "float8"'],
  [{ 'int8.SCB': cpuTensor('F32', [5], new Float32Array(5)) }, 'int8.SCB must be F32 with 6 values'],
  [{ 'int8.weight_format': cpuTensor('U8', [], [2]) }, 'weight_format is 2'],
] as [Record<string, CpuTensor | undefined>, string][])(
  'case %#: a state dict that does not fit is refused',
  (changes, reason) => {
    const changed = new Map(tensors)
    for (const [name, tensor] of Object.entries(changes)) {
      if (tensor) changed.set(name, tensor)
      else changed.delete(name)
    }
    expect(() => readBitsandbytes(changed)).toThrow(SyntaxError)
    expect(() => readBitsandbytes(changed)).toThrow(reason)
  },
)
