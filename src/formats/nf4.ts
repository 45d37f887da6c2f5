import { type Shape, showShape, sizeOf } from '../core/shape.ts'

/** The sixteen levels of NF4, ascending: quantiles of the normal distribution, as bitsandbytes rounds them to f32. */
export const nf4Levels: Float32Array<ArrayBuffer> = fromHex(
  '000080bf b13932bf 306b06bf a032cabe 4da291be 3f353dbe 7178babd 00000000 ' +
    'fffaa23d e3ca243e dd047c3e 3a03ad3e b8a4e13e ab07103f b313393f 0000803f',
)

/** Values of a block that share one scale. */
export const nf4BlockSize = 64

/** A matrix in NF4. */
export interface Nf4 {
  readonly shape: Shape
  /** (size / 2) bytes, the first value of each byte in its high nibble. */
  readonly codes: Uint8Array<ArrayBuffer>
  /** f32 (⌈size / 64⌉): the largest magnitude of each block of the flattened matrix. */
  readonly scales: Float32Array<ArrayBuffer>
}

/** Midpoints of neighbouring levels in f32: a value takes the level above when it is strictly larger. */
const thresholds = Float32Array.from({ length: 15 }, (_, i) => (nf4Levels[i] + nf4Levels[i + 1]) / 2)

/**
 * Quantises to NF4: each block of 64 values of the flattened matrix by its largest magnitude.
 * @param values finite numbers, as many as `shape` has; an even number.
 * @throws RangeError when the sizes do not fit or a value is not finite.
 * @see Dettmers et al., QLoRA, 2023, section 3; nibbles and thresholds as in bitsandbytes.
 */
export function quantizeNf4(values: Float32Array, shape: Shape): Nf4 {
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
  return { shape, codes, scales }
}

function codeOf(value: number): number {
  let code = 0
  while (code < 15 && value > thresholds[code]) code++
  return code
}

/** The values that NF4 stands for: level · scale, in f32. */
export function dequantizeNf4({ shape, codes, scales }: Nf4): Float32Array<ArrayBuffer> {
  const y = new Float32Array(sizeOf(shape))
  for (let i = 0; i < y.length; i++) {
    const code = i % 2 === 0 ? codes[i >> 1] >> 4 : codes[i >> 1] & 15
    y[i] = nf4Levels[code] * scales[Math.floor(i / nf4BlockSize)]
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
