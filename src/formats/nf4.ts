import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import { dynamicCode, dynamicMap } from './dynamic-map.ts'

/** The sixteen levels of NF4, ascending: quantiles of the normal distribution, as bitsandbytes rounds them to f32. */
export const nf4Levels: Float32Array<ArrayBuffer> = fromHex(
  '000080bf b13932bf 306b06bf a032cabe 4da291be 3f353dbe 7178babd 00000000 ' +
    'fffaa23d e3ca243e dd047c3e 3a03ad3e b8a4e13e ab07103f b313393f 0000803f',
)

/** Values of a block that share one scale. */
export const nf4BlockSize = 64

/** Scales of a nested block, which share one scale of their own. */
export const nestedBlockSize = 256

/** The scales of a matrix, quantised themselves: scale = map[code] · absmax of the code's block + offset. */
export interface NestedScales {
  /** u8 (⌈size / 64⌉): a code of {@link map} for each scale. */
  readonly codes: Uint8Array<ArrayBuffer>
  /** f32 (256): what the codes stand for; the signed dynamic map unless a file brings another. */
  readonly map: Float32Array<ArrayBuffer>
  /** f32 (⌈scales / 256⌉): the largest magnitude of scale − offset in each block of 256 scales. */
  readonly absmax: Float32Array<ArrayBuffer>
  /** Mean of the scales, f32. */
  readonly offset: number
}

/** A matrix in NF4, its scales as they are or nested. */
export interface Nf4<Scales = Float32Array<ArrayBuffer>> {
  readonly shape: Shape
  /** (size / 2) bytes, the first value of each byte in its high nibble. */
  readonly codes: Uint8Array<ArrayBuffer>
  /** f32 (⌈size / 64⌉): the largest magnitude of each block of the flattened matrix; or the same, quantised. */
  readonly scales: Scales
}

/** Midpoints of neighbouring levels in f32: a value takes the level above when it is strictly larger. */
const thresholds = Float32Array.from({ length: 15 }, (_, i) => (nf4Levels[i] + nf4Levels[i + 1]) / 2)

/**
 * Quantises to NF4: each block of 64 values of the flattened matrix by its largest magnitude.
 * @param values finite numbers, as many as `shape` has; an even number.
 * @param options.doubleQuant quantises the scales too: 4.127 bits a value instead of 4.5.
 * @throws RangeError when the sizes do not fit or a value is not finite.
 * @see Dettmers et al., QLoRA, 2023, section 3; nibbles, thresholds and nested codes as in bitsandbytes on CUDA, except
 *   that the codes of an all-zero block are 7, the level that is zero, and the offset is the f64 mean, rounded.
 */
export function quantizeNf4<Nested extends boolean = false>(
  values: Float32Array,
  shape: Shape,
  { doubleQuant }: { doubleQuant?: Nested } = {},
): Nf4<Nested extends true ? NestedScales : Float32Array<ArrayBuffer>> {
  const size = sizeOf(shape)
  if (values.length !== size || size % 2 !== 0)
    throw new RangeError(
      `Cannot quantise ${showShape(shape)} to NF4: it needs an even number of values, ${size}, got ${values.length}`,
    )
  const scales = new Float32Array(Math.ceil(size / nf4BlockSize))
  const codes = new Uint8Array(size / 2)
  for (let block = 0; block < scales.length; block++) {
    const begin = block * nf4BlockSize
    const end = Math.min(size, begin + nf4BlockSize)
    let largest = 0
    for (let i = begin; i < end; i++) {
      if (!Number.isFinite(values[i])) throw new RangeError(`Cannot quantise to NF4: value ${i} is ${values[i]}`)
      largest = Math.max(largest, Math.abs(values[i]))
    }
    scales[block] = largest
    const inverse = Math.fround(1 / largest)
    for (let i = begin; i < end; i++) {
      const code = largest === 0 ? 7 : codeOf(Math.fround(values[i] * inverse))
      codes[i >> 1] |= i % 2 === 0 ? code << 4 : code
    }
  }
  const held = doubleQuant ? quantizeScales(scales) : scales
  return { shape, codes, scales: held as Nested extends true ? NestedScales : Float32Array<ArrayBuffer> }
}

function codeOf(value: number): number {
  let code = 0
  while (code < 15 && value > thresholds[code]) code++
  return code
}

/** Quantises scales in blocks of 256 with the signed dynamic map, after taking their mean away. */
export function quantizeScales(scales: Float32Array): NestedScales {
  const offset = Math.fround(scales.reduce((sum, scale) => sum + scale, 0) / scales.length)
  const moved = scales.map((scale) => scale - offset)
  const absmax = new Float32Array(Math.ceil(scales.length / nestedBlockSize))
  const codes = new Uint8Array(scales.length)
  for (let block = 0; block < absmax.length; block++) {
    const begin = block * nestedBlockSize
    const part = moved.subarray(begin, begin + nestedBlockSize)
    absmax[block] = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    // Where all scales equal the offset this is infinite and the codes are 0, which stand for 0 again: −1 · 0.
    const inverse = Math.fround(1 / absmax[block])
    for (const [i, value] of part.entries()) codes[begin + i] = dynamicCode(Math.fround(value * inverse))
  }
  return { codes, map: dynamicMap, absmax, offset }
}

/** The scales that nested ones stand for: map[code] · absmax + offset, rounded to f32 after each operation. */
export function dequantizeScales({ codes, map, absmax, offset }: NestedScales): Float32Array<ArrayBuffer> {
  return Float32Array.from(
    codes,
    (code, i) => Math.fround(map[code] * absmax[Math.floor(i / nestedBlockSize)]) + offset,
  )
}

/** The values that NF4 stands for: level · scale, in f32. */
export function dequantizeNf4({
  shape,
  codes,
  scales,
}: Nf4<Float32Array<ArrayBuffer> | NestedScales>): Float32Array<ArrayBuffer> {
  const factors = scales instanceof Float32Array ? scales : dequantizeScales(scales)
  const y = new Float32Array(sizeOf(shape))
  for (let i = 0; i < y.length; i++) {
    const code = i % 2 === 0 ? codes[i >> 1] >> 4 : codes[i >> 1] & 15
    y[i] = nf4Levels[code] * factors[Math.floor(i / nf4BlockSize)]
  }
  return y
}

function fromHex(words: string): Float32Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(4))
  return Float32Array.from(words.split(' '), (word) => {
    view.setUint32(0, Number.parseInt(word, 16))
    return view.getFloat32(0, true)
  })
}
