import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { dynamicCode, dynamicMap } from '../../src/formats/dynamic-map.ts'
import { dequantizeInt8, quantizeInt8 } from '../../src/formats/int8.ts'
import { dequantizeNf4, dequantizeScales, nf4Levels, quantizeNf4 } from '../../src/formats/nf4.ts'

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

test('the dynamic map is that of bitsandbytes, bit for bit', () => {
  const hash = createHash('sha256').update(new Uint8Array(dynamicMap.buffer)).digest('hex')
  expect(hash.slice(0, 16)).toBe('6d0ca9fed140bc2c')
})

test('a dynamic code stands for the nearest value of the map', () => {
  for (const [code, value] of dynamicMap.entries()) expect(dynamicCode(value)).toBe(code)
  const random = new Random(9)
  for (let i = 0; i < 2000; i++) {
    const value = Math.fround((random.uniform() * 2 - 1) * 10 ** -random.integer(7))
    const error = Math.abs(dynamicMap[dynamicCode(value)] - value)
    const least = dynamicMap.reduce((best, other) => Math.min(best, Math.abs(other - value)), 2)
    expect(error).toBeLessThanOrEqual(least * (1 + 1e-6))
  }
})

test('nested scales come back within the step of their map, in blocks of 256', () => {
  const random = new Random(3)
  const shape = [300, 128]
  const values = random.normals(300 * 128)
  const plain = quantizeNf4(values, shape)
  const nested = quantizeNf4(values, shape, { doubleQuant: true })
  expect(nested.codes).toEqual(plain.codes)
  expect(nested.scales.codes).toHaveLength(600)
  expect(nested.scales.absmax).toHaveLength(3)
  expect(nested.scales.offset).toBe(Math.fround(plain.scales.reduce((sum, scale) => sum + scale, 0) / 600))
  const back = dequantizeScales(nested.scales)
  // The map's widest step is 1/64 of the largest deviation; half of it is the most that can be lost.
  for (const [i, scale] of plain.scales.entries())
    expect(Math.abs(back[i] - scale)).toBeLessThanOrEqual(nested.scales.absmax[Math.floor(i / 256)] * 0.0075)
  const error = (other: Float32Array) =>
    Math.hypot(...values.map((value, i) => value - other[i])) / Math.hypot(...values)
  expect(error(dequantizeNf4(nested))).toBeLessThan(error(dequantizeNf4(plain)) * 1.002)
})

test('scales that are all equal stay what they are', () => {
  const nested = quantizeNf4(new Float32Array(640).fill(0.3), [10, 64], { doubleQuant: true })
  expect([...dequantizeScales(nested.scales)]).toEqual(new Array(10).fill(Math.fround(0.3)))
})

test('int8 rounds each row by its largest magnitude, ties to even', () => {
  const { codes, absmax } = quantizeInt8(Float32Array.of(127, 0.5, -1.5, 2.5, -254, 1, 3, 0, 0, 0, 0, 0), [3, 4])
  expect([...absmax]).toEqual([127, 254, 0])
  expect([...codes]).toEqual([127, 0, -2, 2, -127, 0, 2, 0, 0, 0, 0, 0])
})

test('int8 loses at most half a code', () => {
  const values = new Random(5).normals(20 * 40)
  const packed = quantizeInt8(values, [20, 40])
  for (const [i, value] of dequantizeInt8(packed).entries())
    expect(Math.abs(value - values[i])).toBeLessThanOrEqual((packed.absmax[Math.floor(i / 40)] / 127) * 0.50001)
  expect(() => quantizeInt8(Float32Array.of(1, Number.POSITIVE_INFINITY), [1, 2])).toThrow('value 1 is Infinity')
  expect(() => quantizeInt8(values, [20, 41])).toThrow('Cannot quantise [20,41] to int8: it must be (N, K), got 800')
})
