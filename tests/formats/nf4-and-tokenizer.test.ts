import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fromHalf, toHalf } from '../../src/core/half.ts'
import { Random } from '../../src/core/random.ts'
import { dequantizeNf4, nf4Levels, quantizeNf4 } from '../../src/formats/nf4.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { dequantizeNf4 as dequantizeOnGpu, nf4Linear } from '../../src/kernels/nf4.ts'
import { checkOp, expectClose, zeros } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

test('the NF4 levels are those of bitsandbytes, bit for bit', () => {
  const hash = createHash('sha256').update(new Uint8Array(nf4Levels.buffer)).digest('hex')
  expect(hash.slice(0, 16)).toBe('8501941daa1b8a90')
})

test('each NF4 code stands for the nearest level, the lower one on a tie', () => {
  // A block whose largest magnitude is 1, so that values are levels directly.
  const values = new Float32Array(64)
  values[0] = 1
  values.set(nf4Levels, 1)
  const { codes } = quantizeNf4(values, [1, 64])
  const code = (i: number) => (i % 2 === 0 ? codes[i >> 1] >> 4 : codes[i >> 1] & 15)
  expect(code(0)).toBe(15)
  for (let level = 0; level < 16; level++) expect(code(1 + level)).toBe(level)
  const middle = new Float32Array(64).fill((nf4Levels[8] + nf4Levels[9]) / 2)
  middle[0] = 1
  expect(quantizeNf4(middle, [64]).codes[5]).toBe(0x88)
})

test('an all-zero block is zeros again', () => {
  const packed = quantizeNf4(new Float32Array(128), [2, 64])
  expect([...packed.codes].every((byte) => byte === 0x77)).toBe(true)
  expect(dequantizeNf4(packed).every((value) => value === 0)).toBe(true)
})

test('the error on normal values is the one that is known of NF4', () => {
  const values = new Random(1).normals(64 * 2000)
  const back = dequantizeNf4(quantizeNf4(values, [2000, 64]))
  const error = values.reduce((sum, value, i) => sum + Math.abs(value - back[i]), 0) / values.length
  expect(error).toBeCloseTo(0.0728, 3)
})

test('NF4 refuses what it cannot hold', () => {
  expect(() => quantizeNf4(new Float32Array(3), [3])).toThrow('even number')
  expect(() => quantizeNf4(Float32Array.of(1, Number.NaN), [2])).toThrow('value 1 is NaN')
})

test('the kernels read packed weights as the CPU does, forward and backward', () =>
  withoutLeaks(async () => {
    for (const [m, n, k] of [
      [5, 24, 64],
      [1, 8, 8],
      [70, 130, 128],
    ] as const) {
      const random = new Random(n)
      const packed = quantizeNf4(random.normals(n * k), [n, k])
      using step = gpu.step()
      const words = new Uint32Array(packed.codes.buffer)
      const weight = {
        shape: [n, k],
        codes: step.upload('u32', [words.length], words),
        scales: step.upload('f32', [packed.scales.length], packed.scales),
      }
      expect(await step.read(dequantizeOnGpu(step, weight, 'f32'))).toEqual(dequantizeNf4(packed))
      const x = step.upload('f32', [m, k], random.normals(m * k))
      const dense = step.upload('f32', [n, k], dequantizeNf4(packed))
      x.requiresGrad = true
      const seed = step.upload('f32', [m, n], random.normals(m * n))
      const [y, z] = [nf4Linear(step, x, weight), linear(step, x, dense)]
      expectClose('y', await step.read(y), await step.read(z), 2e-6)
      const [dy, dz] = [y, z].map((output) => step.backward(output, { seed }).get(x))
      expectClose('dx', await step.read(dy), await step.read(dz), 4e-6)
      await step.checkGuards()
    }
  }))

const packedFor = (n: number, k: number) => quantizeNf4(new Random(n).normals(n * k), [n, k])
for (const [n, k] of [
  [24, 64],
  [8, 8],
  [130, 128],
] as const)
  checkOp(`nf4Linear (${n}, ${k})`, {
    op: (step, x) => {
      const { shape, codes, scales } = packedFor(n, k)
      const words = new Uint32Array(codes.buffer)
      const upload = {
        codes: step.upload('u32', [words.length], words),
        scales: step.upload('f32', [scales.length], scales),
      }
      return nf4Linear(step, x, { shape, ...upload })
    },
    reference: (x) => {
      const weight = dequantizeNf4(packedFor(n, k))
      const y = zeros(x.data.length / k, n)
      for (let i = 0; i < y.data.length; i++)
        for (let c = 0; c < k; c++) y.data[i] += x.data[Math.floor(i / n) * k + c] * weight[(i % n) * k + c]
      return y
    },
    shapes: [[[5, k]], [[1, k]], [[70, k]]],
  })

test('half floats round to nearest even and come back', () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = fromHalf(bits)
    if (Number.isNaN(value)) expect(Number.isNaN(fromHalf(toHalf(value)))).toBe(true)
    else expect(toHalf(value)).toBe(bits)
  }
  expect(fromHalf(toHalf(1 + 2 ** -11))).toBe(1)
  expect(fromHalf(toHalf(1 + 3 * 2 ** -11))).toBe(1 + 2 ** -9)
  expect(fromHalf(toHalf(65520))).toBe(Number.POSITIVE_INFINITY)
})

test('ids equal those of Hugging Face’s own library', () => {
  const rows = JSON.parse(readFileSync(join(import.meta.dirname, '../oracles/golden/tokenizer-ids.json'), 'utf8')) as {
    text: string
    ids: number[]
  }[]
  const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
  expect(tokenizer.size).toBe(96)
  for (const { text, ids } of rows) {
    expect(tokenizer.encode(text)).toEqual(ids)
    expect(tokenizer.decode(ids)).toBe(text)
  }
})

test('a character that the vocabulary lacks is refused, and so is a file that is no tokenizer', () => {
  const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
  expect(() => tokenizer.encode('naïve')).toThrow('Cannot encode "naïve"')
  expect(() => loadTokenizer({ model: { type: 'nonsense' } })).toThrow(SyntaxError)
})
