import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { memorySource } from '../../src/formats/byte-source.ts'
import { parseGguf, readGguf } from '../../src/formats/gguf.ts'
import { parseGgufConfig } from '../../src/formats/gguf-config.ts'
import { tokenizerFromGguf } from '../../src/formats/gguf-tokenizer.ts'
import { parseSafetensors, readSafetensorsHeader } from '../../src/formats/safetensors.ts'
import { elementBytes } from '../../src/formats/tensor.ts'

const golden = join(import.meta.dirname, '../oracles/golden')
const read = (name: string) => new Uint8Array(readFileSync(join(golden, name)))
const small = read('small.gguf')
const plain = read('formats.safetensors')

// Bytes of little-endian numbers, texts with their length, and raw texts.
const u8 = (...values: number[]) => Uint8Array.from(values)
const u32 = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer)
const u64 = (...values: (number | bigint)[]) => new Uint8Array(BigUint64Array.from(values, BigInt).buffer)
const raw = (text: string) => new TextEncoder().encode(text)
const text = (value: string) => join2(u64(raw(value).length), raw(value))
const join2 = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]))
const head = (tensors: number | bigint, values: number | bigint) => join2(raw('GGUF'), u32(3), u64(tensors, values))
const value = (...parts: Uint8Array[]) => join2(head(0, 1), text('a'), ...parts)
const aligned = (...parts: Uint8Array[]) => join2(head(0, 1), text('general.alignment'), ...parts)
const info = (name: string, shape: (number | bigint)[], type: number, offset: number | bigint) =>
  join2(text(name), u32(shape.length), u64(...shape), u32(type), u64(offset))
const table = (count: number, ...parts: Uint8Array[]) => join2(head(count, 0), ...parts, new Uint8Array(256))
const huge = 2n ** 64n - 1n

const ggufs: Record<string, [bytes: Uint8Array, reason: string]> = {
  nothing: [u8(), 'truncated'],
  'half a magic number': [raw('GGU'), 'truncated'],
  'another magic number': [raw('GGML0000000000000000000'), 'does not begin with GGUF'],
  'version 0': [join2(raw('GGUF'), u32(0), u64(0, 0)), 'version is 0'],
  'version 1': [join2(raw('GGUF'), u32(1), u64(0, 0)), 'version is 1'],
  'version 4': [join2(raw('GGUF'), u32(4), u64(0, 0)), 'version is 4'],
  'a big-endian file': [join2(raw('GGUF'), u32(0x03000000), u64(0, 0)), 'big-endian'],
  'no counts': [join2(raw('GGUF'), u32(3)), 'truncated'],
  'tensors past 2^53': [head(huge, 0), 'past 2^53'],
  'tensors past the file': [head(2 ** 32, 0), 'claims 4294967296 tensors'],
  'values past 2^53': [head(0, huge), 'past 2^53'],
  'values past the file': [head(0, 1), 'claims 1 metadata values'],
  'a key past 2^53': [join2(head(0, 1), u64(huge), new Uint8Array(16)), 'past 2^53'],
  'a key past the file': [join2(head(0, 1), u64(10 ** 9), new Uint8Array(16)), 'claims 1000000000 bytes'],
  'a key that is not UTF-8': [join2(head(0, 1), u64(2), u8(0xc3, 0x28), u32(4, 4)), 'not UTF-8'],
  'a key twice': [join2(head(0, 2), text('a'), u32(4, 1), text('a'), u32(4, 1)), 'appears twice'],
  'a value of type 13': [value(u32(13, 0, 0)), 'type 13'],
  'a value of type 2^31': [value(u32(2 ** 31, 0, 0)), 'type 2147483648'],
  'half a number': [value(u32(10, 0)), 'truncated'],
  'a text past 2^53': [value(u32(8), u64(2n ** 60n)), 'past 2^53'],
  'a text past the file': [value(u32(8), u64(2 ** 40)), 'bytes follow'],
  'a text that is not UTF-8': [value(u32(8), u64(1), u8(0xff)), 'not UTF-8'],
  'a boolean of 2': [value(u32(7), u8(2)), 'boolean of value 2'],
  'an array of bytes past the file': [value(u32(9, 0), u64(2n ** 52n)), 'claims 4503599627370496 elements'],
  'an array of doubles past the file': [value(u32(9, 12), u64(3), new Uint8Array(16)), 'claims 3 elements'],
  'an array of texts past the file': [value(u32(9, 8), u64(2 ** 33), new Uint8Array(64)), 'claims 8589934592'],
  'an array of arrays past the file': [value(u32(9, 9), u64(2 ** 33), new Uint8Array(64)), 'claims 8589934592'],
  'an array of unknown things': [value(u32(9, 99), u64(1), new Uint8Array(64)), 'type 99'],
  'an array with a boolean of 7': [value(u32(9, 7), u64(1), u8(7)), 'boolean of value 7'],
  'arrays in arrays in arrays': [value(u32(9), ...Array(40).fill(join2(u32(9), u64(1))), u32(0)), 'nested too deeply'],
  'alignment 0': [aligned(u32(4, 0)), 'power of two'],
  'alignment 3': [aligned(u32(4, 3)), 'power of two'],
  'alignment -8': [aligned(u32(5, 2 ** 32 - 8)), 'power of two'],
  'alignment as text': [aligned(u32(8), text('32')), 'power of two'],
  'alignment not a number': [aligned(u32(6, 0x7fc00000)), 'power of two'],
  'a tensor twice': [table(2, info('a', [4], 0, 0), info('a', [4], 0, 32)), 'appears twice'],
  'rank 5': [table(1, info('a', [1, 1, 1, 1, 1], 0, 0)), '5 dimensions'],
  'rank 2^32 - 1': [table(1, text('a'), u32(2 ** 32 - 1), u64(1)), '4294967295 dimensions'],
  'a dimension past 2^53': [table(1, info('a', [huge], 0, 0)), 'past 2^53'],
  'a shape that overflows': [table(1, info('a', [2n ** 40n, 2n ** 40n], 0, 0)), 'overflows'],
  'a shape that overflows to 0 in 64 bits': [table(1, info('a', [2n ** 32n, 2n ** 32n], 0, 0)), 'overflows'],
  'a type that was removed': [table(1, info('a', [4], 4, 0)), 'type 4, which is unknown'],
  'a type that never was': [table(1, info('a', [4], 1000, 0)), 'type 1000'],
  'rows of half blocks': [table(1, info('a', [33, 2], 8, 0)), 'not a whole number of Q8_0 blocks'],
  'a scalar of blocks': [table(1, info('a', [], 8, 0)), 'not a whole number of Q8_0 blocks'],
  'an offset that is not aligned': [table(1, info('a', [4], 0, 4)), 'begins at 4'],
  'an overlap': [table(2, info('a', [16], 0, 0), info('b', [4], 0, 32)), 'want 64'],
  'a hole': [table(2, info('a', [4], 0, 0), info('b', [4], 0, 64)), 'want 32'],
  'an offset past 2^53': [table(1, info('a', [4], 0, huge)), 'past 2^53'],
  'weights past the file': [table(1, info('a', [10 ** 9], 0, 0)), 'it is truncated'],
  'half a table': [join2(head(1, 0), text('a'), u32(1), u64(4), u32(0)), 'truncated'],
  'a tensor name past the file': [join2(head(1, 0), u64(2 ** 45), new Uint8Array(64)), 'claims 35184372088832 bytes'],
}

const file = (header: string | Uint8Array, body = 0, length?: bigint) => {
  const bytes = typeof header === 'string' ? raw(header) : header
  return join2(u64(length ?? bytes.length), bytes, new Uint8Array(body))
}
const entry = (dtype: string, shape: string, offsets: string) =>
  `{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`

const safetensors: Record<string, [bytes: Uint8Array, reason: string]> = {
  'a header of 2^64 - 1 bytes': [file('{}', 0, huge), 'more than the 100000000'],
  'a header of 2^63 bytes': [file('{}', 0, 2n ** 63n), 'more than the 100000000'],
  'a header of nothing': [file(''), 'does not begin'],
  'a header that is not UTF-8': [file(u8(0x7b, 0xff, 0x7d)), 'not valid JSON'],
  'a header that begins with a space': [file(' {}'), 'does not begin'],
  'two headers': [file('{}{}'), 'text after the end'],
  'a list of dtypes': [file(entry('["F32"]', '[1]', '[0,4]'), 4), 'dtype'],
  'half a dimension': [file(entry('"U8"', '[0.5]', '[0,0]')), 'non-negative integers'],
  'a dimension of 1e400': [file(entry('"U8"', '[1e400]', '[0,0]')), 'non-negative integers'],
  'a shape that is an object': [file(entry('"U8"', '{"0":1}', '[0,1]'), 1), 'non-negative integers'],
  'three offsets': [file(entry('"U8"', '[1]', '[0,1,1]'), 1), 'two data_offsets'],
  'offsets the wrong way': [file(entry('"U8"', '[1]', '[1,0]'), 1), 'its offsets give -1'],
  'half a byte': [file(entry('"F4"', '[3]', '[0,1]'), 1), 'not a whole number of bytes'],
  'a tensor that is null': [file('{"a":null}'), 'must be an object'],
  'metadata that is a list': [file('{"__metadata__":[]}'), 'strings to strings'],
  'metadata twice': [file('{"__metadata__":{},"__metadata__":{}}'), 'appears twice'],
  'a thousand dimensions': [file(entry('"U8"', `[${'1000,'.repeat(999)}2]`, '[0,1]'), 1), 'overflows'],
  'a million brackets': [file(`{"a":${'['.repeat(1_000_000)}`), 'nested too deeply'],
  'a megabyte of backslashes': [file(`{"${'\\\\'.repeat(500_000)}`), 'expected a key'],
  'a trailing comma': [file('{"a":1,}'), 'not valid JSON'],
}

/** Milliseconds of the fastest of three runs: the first waits for the compiler, any may wait for its neighbours. */
function timed(parse: () => unknown): number {
  return Math.min(
    ...Array.from({ length: 3 }, () => {
      const begin = performance.now()
      expect(parse).toThrow(SyntaxError)
      return performance.now() - begin
    }),
  )
}

test.each(Object.entries(ggufs))(
  'GGUF with %s is refused within 50 ms, from memory and through a source',
  async (_, [bytes, reason]) => {
    expect(() => parseGguf(bytes)).toThrow(SyntaxError)
    expect(() => parseGguf(bytes)).toThrow(reason)
    await expect(readGguf(memorySource(bytes as Uint8Array<ArrayBuffer>))).rejects.toThrow(reason)
    expect(timed(() => parseGguf(bytes))).toBeLessThan(50)
  },
)

test.each(Object.entries(safetensors))('safetensors with %s is refused within 50 ms', async (_, [bytes, reason]) => {
  expect(() => parseSafetensors(bytes)).toThrow(SyntaxError)
  expect(() => parseSafetensors(bytes)).toThrow(reason)
  await expect(readSafetensorsHeader(memorySource(bytes as Uint8Array<ArrayBuffer>))).rejects.toThrow(reason)
  expect(timed(() => parseSafetensors(bytes))).toBeLessThan(50)
})

test('oddities that are legal are read', () => {
  const empty = parseGguf(table(2, info('a', [0, 2n ** 40n], 0, 0), info('b', [], 0, 0)))
  expect(empty.tensors.get('a')).toMatchObject({ shape: [2 ** 40, 0], byteLength: 0 })
  expect(empty.tensors.get('b')).toMatchObject({ shape: [], byteLength: 4 })
  expect(parseGguf(value(u32(9, 9), u64(1), u32(9), u64(1), u32(0), u64(1), u8(5))).metadata.get('a')).toEqual([
    [u8(5)],
  ])
  expect(parseSafetensors(file('{}      ')).tensors.size).toBe(0)
  expect(
    parseSafetensors(file('{"":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}', 2)).tensors.get('')!.data.length,
  ).toBe(2)
})

/** `original` with a few bytes changed, moved, cut or doubled. */
function mutate(original: Uint8Array, random: Random): Uint8Array {
  const kind = random.integer(10)
  if (kind === 0) return original.slice(0, random.integer(original.length))
  const bytes = original.slice()
  if (kind === 1) {
    const [from, to, length] = [random.integer(bytes.length), random.integer(bytes.length), random.integer(64)]
    bytes.copyWithin(to, from, from + length)
    return bytes
  }
  const interesting = [0, 1, 7, 8, 9, 0x7f, 0x80, 0xff]
  for (let changes = 1 + random.integer(4); changes > 0; changes--) {
    const at = random.integer(bytes.length)
    bytes[at] = random.integer(2) === 0 ? random.pick(interesting) : random.integer(256)
  }
  return bytes
}

/** Parses `count` mutations; each must give a SyntaxError or pass `check`. Returns how many were accepted. */
function fuzz(original: Uint8Array, count: number, seed: number, check: (bytes: Uint8Array) => void): number {
  const random = new Random(seed)
  let accepted = 0
  let slowest = 0
  for (let i = 0; i < count; i++) {
    const bytes = mutate(original, random)
    const once = () => {
      const begin = performance.now()
      let passed = true
      try {
        check(bytes)
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error
        passed = false
      }
      return { passed, took: performance.now() - begin }
    }
    const { passed, took } = once()
    if (passed) accepted++
    // Whoever shares the machine may stop this process: what took long must take long again and again.
    slowest = Math.max(slowest, took < 50 ? took : Math.min(...Array.from({ length: 5 }, () => once().took)))
  }
  expect(slowest).toBeLessThan(50)
  return accepted
}

/** Bytes of the largest typed array or buffer that is made while `work` runs. */
function largestAllocation(work: () => void): number {
  const kinds = [
    'ArrayBuffer',
    'Uint8Array',
    'Int8Array',
    'Uint16Array',
    'Int16Array',
    'Uint32Array',
    'Int32Array',
  ] as const
  const more = ['Float32Array', 'Float64Array', 'BigInt64Array', 'BigUint64Array', 'Array'] as const
  const scope = globalThis as unknown as Record<string, NewableFunction>
  let most = 0
  const originals = [...kinds, ...more].map((name) => [name, scope[name]] as const)
  for (const [name, original] of originals)
    scope[name] = new Proxy(original, {
      construct(target, parameters, self) {
        const [first] = parameters as unknown[]
        const each = name === 'Array' ? 8 : ((target as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT ?? 1)
        if (typeof first === 'number') most = Math.max(most, first * each)
        return Reflect.construct(target, parameters as unknown[], self === scope[name] ? target : self) as object
      },
    })
  try {
    work()
  } finally {
    for (const [name, original] of originals) scope[name] = original
  }
  return most
}

test('at least 60 files are handcrafted, and none makes room for what it claims', () => {
  expect(Object.keys(ggufs).length + Object.keys(safetensors).length).toBeGreaterThanOrEqual(60)
  expect(largestAllocation(() => new Float32Array(1000))).toBe(4000)
  for (const [parse, files] of [
    [parseGguf, ggufs],
    [parseSafetensors, safetensors],
  ] as const)
    for (const [name, [bytes]] of Object.entries(files)) {
      const largest = largestAllocation(() => expect(() => parse(bytes)).toThrow(SyntaxError))
      expect(largest, name).toBeLessThanOrEqual(8 * bytes.length + 1024)
    }
})

test('2,000 mutated files of each kind make no room beyond their own size', () => {
  for (const [parse, original] of [
    [parseGguf, small],
    [parseSafetensors, plain],
  ] as const) {
    const random = new Random(4)
    for (let i = 0; i < 2000; i++) {
      const bytes = mutate(original, random)
      const largest = largestAllocation(() => {
        try {
          parse(bytes)
        } catch (error) {
          if (!(error instanceof SyntaxError)) throw error
        }
      })
      expect(largest).toBeLessThanOrEqual(8 * bytes.length + 1024)
    }
  }
})

test('50,000 mutated GGUF files each give a SyntaxError or a file that is consistent', () => {
  const header = small.subarray(0, 992)
  const padding = small.length - header.length
  const accepted = fuzz(header, 50_000, 1, (mutated) => {
    const bytes = new Uint8Array(mutated.length + padding)
    bytes.set(mutated)
    const gguf = parseGguf(bytes)
    for (const { offset, byteLength, shape } of gguf.tensors.values()) {
      if (!(offset >= gguf.dataOffset && offset + byteLength <= bytes.length)) throw new Error('outside the file')
      if (!shape.every(Number.isSafeInteger)) throw new Error('a shape of no integers')
    }
  })
  expect(accepted).toBeGreaterThan(1000)
  expect(accepted).toBeLessThan(49_000)
})

test('50,000 mutated safetensors files each give a SyntaxError or a file that is consistent', () => {
  const accepted = fuzz(plain, 50_000, 2, (bytes) => {
    for (const { dtype, shape, data } of parseSafetensors(bytes).tensors.values())
      if (data.length !== shape.reduce((size, dimension) => size * dimension, elementBytes[dtype]))
        throw new Error('a tensor of another size')
  })
  expect(accepted).toBeGreaterThan(500)
  expect(accepted).toBeLessThan(49_000)
})

test('2,000 mutated models each give a SyntaxError, or a description and a tokenizer', () => {
  const key = (name: string, ...parts: Uint8Array[]) => join2(text(name), ...parts)
  const number = (name: string, n: number) => key(`llama.${name}`, u32(4, n))
  const list = (...texts: string[]) => join2(u32(9, 8), u64(texts.length), ...texts.map(text))
  const values = [
    ...[key('general.architecture', u32(8), text('llama')), number('embedding_length', 8), number('block_count', 2)],
    ...[number('attention.head_count', 2), number('feed_forward_length', 8), number('context_length', 8)],
    key('llama.attention.layer_norm_rms_epsilon', u32(6, 0x3727c5ac)),
    ...[key('tokenizer.ggml.model', u32(8), text('gpt2')), key('tokenizer.ggml.pre', u32(8), text('smollm'))],
    ...[key('tokenizer.ggml.tokens', list('a', 'b', 'ab')), key('tokenizer.ggml.merges', list('a b'))],
  ]
  const model = join2(head(1, values.length), ...values, info('token_embd.weight', [8, 3], 0, 0))
  const accepted = fuzz(model, 2000, 3, (mutated) => {
    const bytes = new Uint8Array(mutated.length + 512)
    bytes.set(mutated)
    const gguf = parseGguf(bytes)
    parseGgufConfig(gguf)
    tokenizerFromGguf(gguf.metadata)
  })
  expect(accepted).toBeGreaterThan(20)
  expect(accepted).toBeLessThan(1900)
})
