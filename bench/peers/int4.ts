/** Values that share one scale. In blocks of 64, as NF4 has them, onnxruntime takes a path that is 30 times slower. */
export const int4BlockSize = 32

/** A matrix in signed four-bit integers, as onnxruntime's MatMulNBits reads it. */
export interface Int4 {
  /** (size / 2) bytes, the first value of each byte in its low nibble; the code of zero is 8. */
  readonly codes: Uint8Array<ArrayBuffer>
  /** f32 (size / 32). */
  readonly scales: Float32Array<ArrayBuffer>
}

/** Rounds each block of 32 values to −8 … 7 times a scale. `values` must be a multiple of 32 long. */
export function quantizeInt4(values: Float32Array): Int4 {
  const scales = new Float32Array(values.length / int4BlockSize)
  const codes = new Uint8Array(values.length / 2)
  for (let block = 0; block < scales.length; block++) {
    const part = values.subarray(block * int4BlockSize, (block + 1) * int4BlockSize)
    const scale = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 7 || 1
    scales[block] = scale
    for (const [i, value] of part.entries()) {
      const code = Math.round(value / scale) + 8
      codes[(block * int4BlockSize + i) >> 1] |= i % 2 === 0 ? code : code << 4
    }
  }
  return { codes, scales }
}

/** The values that the codes stand for: (code − 8) · scale. */
export function dequantizeInt4({ codes, scales }: Pick<Int4, 'codes'> & { scales: Float32Array }) {
  return Float32Array.from({ length: codes.length * 2 }, (_, i) => {
    const code = i % 2 === 0 ? codes[i >> 1] & 15 : codes[i >> 1] >> 4
    return (code - 8) * scales[Math.floor(i / int4BlockSize)]
  })
}
