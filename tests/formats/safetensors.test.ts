import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { parseJsonStrictly } from '../../src/formats/strict-json.ts'
import { type CpuTensor, cpuTensor, elementBytes, toFloat32, toUint32 } from '../../src/formats/tensor.ts'

const golden = join(import.meta.dirname, '../oracles/golden')

test('writes byte for byte what the format’s own library writes', () => {
  const bytes = new Uint8Array(readFileSync(join(golden, 'formats.safetensors')))
  const { tensors, metadata } = parseSafetensors(bytes)
  expect(metadata).toEqual({ format: 'pt' })
  expect([...toFloat32(tensors.get('a.half')!)]).toEqual([1.5, -2.25, 65504])
  expect([...toFloat32(tensors.get('b.matrix')!)]).toEqual([0, 0.25, 0.5, 0.75, 1, 1.25])
  expect([...toUint32(tensors.get('bytes')!)]).toEqual([1, 2, 255])
  expect(tensors.get('scalar')!.shape).toEqual([])
  expect(tensors.get('empty')!.shape).toEqual([0, 4])
  expect(writeSafetensors(tensors, metadata)).toEqual(bytes)
})

function file(header: string, body = 0): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(header)
  const bytes = new Uint8Array(8 + json.length + body)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true)
  bytes.set(json, 8)
  return bytes
}

const entry = (dtype: string, shape: string, offsets: string) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`

test.each([
  ['nothing', new Uint8Array(3), 'too few'],
  ['a header past the end', file('{}').subarray(0, 9), 'truncated'],
  ['a header of 2^60 bytes', new Uint8Array([0, 0, 0, 0, 0, 0, 0, 16, 1]), 'more than the 100000000 allowed'],
  ['no object', file('[]'), 'does not begin with {'],
  ['half an object', file('{"a":'), 'not valid JSON'],
  [
    'two tensors of one name',
    file(`{"a":${entry('U8', '[1]', '[0,1]')},"a":${entry('U8', '[1]', '[0,1]')}}`, 1),
    'appears twice',
  ],
  ['a __proto__ key', file('{"__proto__":{}}'), '__proto__'],
  ['an unknown dtype', file(`{"a":${entry('Q4', '[1]', '[0,1]')}}`, 1), 'dtype "Q4"'],
  ['a dtype of the prototype', file(`{"a":${entry('toString', '[1]', '[0,1]')}}`, 1), 'is unknown'],
  ['a size that lies', file(`{"a":${entry('F32', '[2]', '[0,4]')}}`, 4), 'needs 8 bytes'],
  ['a shape that overflows', file(`{"a":${entry('F32', '[4294967296,4294967296]', '[0,4]')}}`, 4), 'overflows'],
  ['an integer past 2^53', file(`{"a":${entry('U8', '[9007199254740993]', '[0,1]')}}`, 1), 'too large'],
  ['a negative dimension', file(`{"a":${entry('U8', '[-1]', '[0,1]')}}`, 1), 'non-negative'],
  ['a hole', file(`{"a":${entry('U8', '[1]', '[1,2]')}}`, 2), 'no holes'],
  [
    'an overlap',
    file(`{"a":${entry('U8', '[2]', '[0,2]')},"b":${entry('U8', '[2]', '[1,3]')}}`, 3),
    'no holes or overlaps',
  ],
  ['bytes left over', file(`{"a":${entry('U8', '[1]', '[0,1]')}}`, 5), 'need 1 bytes, but 5 follow'],
  ['bytes missing', file(`{"a":${entry('U8', '[9]', '[0,9]')}}`, 5), 'truncated'],
  ['an unknown field', file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}'), 'unknown field'],
  ['metadata of numbers', file('{"__metadata__":{"a":1}}'), 'strings to strings'],
  ['deep nesting', file(`{"a":${'['.repeat(5000)}`), 'nested too deeply'],
])('refuses %s', (_, bytes, reason) => {
  expect(() => parseSafetensors(bytes)).toThrow(SyntaxError)
  expect(() => parseSafetensors(bytes)).toThrow(reason)
})

const types = ['F32', 'F16', 'U32', 'I32', 'U16', 'U8'] as const
const tensors = fc.dictionary(
  fc.string({ minLength: 1 }).filter((name) => name !== '__proto__' && name !== '__metadata__'),
  fc.tuple(fc.constantFrom(...types), fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 })),
  { maxKeys: 6 },
)

function filled(entries: Record<string, [(typeof types)[number], number[]]>): Map<string, CpuTensor> {
  return new Map(
    Object.entries(entries).map(([name, [dtype, shape]]) => [
      name,
      cpuTensor(
        dtype,
        shape,
        Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i),
      ),
    ]),
  )
}

test('what is written is read back', () => {
  fc.assert(
    fc.property(tensors, (entries) => {
      const written = filled(entries)
      const { tensors: read } = parseSafetensors(writeSafetensors(written, { note: 'x"\\é' }))
      expect([...read.keys()].sort()).toEqual([...written.keys()].sort())
      for (const [name, tensor] of written) expect(read.get(name)).toEqual(tensor)
    }),
    { seed: 42, numRuns: 200 },
  )
})

test('a mutated header gives a SyntaxError or a file that is consistent, and nothing else', () => {
  const original = writeSafetensors(filled({ a: ['F32', [2, 2]], b: ['U8', [3]] }), { format: 'pt' })
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(original.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (changes) => {
        const bytes = original.slice()
        for (const [at, value] of changes) bytes[at] = value
        try {
          for (const { dtype, shape, data } of parseSafetensors(bytes).tensors.values())
            expect(data.length).toBe(shape.reduce((a, b) => a * b, elementBytes[dtype]))
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError)
        }
      },
    ),
    { seed: 42, numRuns: 3000 },
  )
})

test('strict JSON agrees with JSON.parse on what it accepts', () => {
  const plain = (value: unknown): unknown =>
    value instanceof Map
      ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]))
      : Array.isArray(value)
        ? value.map(plain)
        : value
  fc.assert(
    fc.property(fc.json({ maxDepth: 4 }), (text) => {
      if (text.includes('__proto__')) return
      let mine: unknown
      try {
        mine = plain(parseJsonStrictly(text))
      } catch (error) {
        // The one thing that JSON.parse takes and this does not, among what fast-check makes: huge integers.
        expect((error as Error).message).toContain('too large')
        return
      }
      expect(mine).toEqual(JSON.parse(text))
    }),
    { seed: 42, numRuns: 500 },
  )
})
