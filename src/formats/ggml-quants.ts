import { fromHalf } from '../core/half.ts'
import { type GgmlType, ggmlRowBytes, ggmlTypes } from './ggml-types.ts'

/**
 * The f32 values that blocks of a ggml type stand for, bit for bit those of ggml's reference: products of a half and a
 * small integer are exact, so each value is rounded once.
 * @param bytes whole blocks.
 * @param elements number of values; a whole number of blocks.
 * @throws RangeError when the bytes are not those of `elements`; TypeError for a type without a dequantiser.
 * @see ggml, src/ggml-quants.c, `dequantize_row_*`.
 */
export function dequantizeGgml(type: GgmlType, bytes: Uint8Array, elements: number): Float32Array<ArrayBuffer> {
  const decode = decoders[type]
  if (!decode) throw new TypeError(`Cannot dequantise ${type}: supported are ${Object.keys(decoders).join(', ')}`)
  const needed = ggmlRowBytes(type, elements)
  if (bytes.length !== needed)
    throw new RangeError(
      `Cannot dequantise ${elements} values of ${type}: they take ${needed} bytes, got ${bytes.length}`,
    )
  const y = new Float32Array(elements)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [, size, blockBytes] = ggmlTypes[type]
  for (let at = 0, out = 0; out < elements; at += blockBytes, out += size) decode(view, at, y, out)
  return y
}

/** Whether {@link dequantizeGgml} knows `type`. */
export function canDequantize(type: GgmlType): boolean {
  return type in decoders
}

/** Writes the values of the block at `at` to `y` from `out` on. */
type Decode = (view: DataView, at: number, y: Float32Array, out: number) => void

let halves: Float32Array | undefined

function half(view: DataView, at: number): number {
  halves ??= Float32Array.from({ length: 0x10000 }, (_, bits) => fromHalf(bits))
  return halves[view.getUint16(at, true)]
}

const words = new Uint32Array(1)
const floats = new Float32Array(words.buffer)

/** Two nibbles a byte: the low ones are the first half of the block, the high ones the second. */
function nibbles(levels: 16 | 32, hasMinimum: boolean): Decode {
  const highBytes = levels === 32 ? 4 : 0
  const shift = hasMinimum ? 0 : levels / 2
  return (view, at, y, out) => {
    const d = half(view, at)
    const minimum = hasMinimum ? half(view, at + 2) : 0
    const head = at + (hasMinimum ? 4 : 2)
    const high = highBytes ? view.getUint32(head, true) : 0
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(head + highBytes + i)
      const low = (byte & 15) | (((high >>> i) & 1) << 4)
      const upper = (byte >> 4) | (((high >>> (i + 16)) & 1) << 4)
      y[out + i] = hasMinimum ? d * low + minimum : d * (low - shift)
      y[out + i + 16] = hasMinimum ? d * upper + minimum : d * (upper - shift)
    }
  }
}

/** Scale `j` of the eight 6-bit scales and minima packed in 12 bytes; the minimum lies at `minimum` = 4. */
function sixBits(view: DataView, scales: number, j: number, minimum: 0 | 4): number {
  if (j < 4) return view.getUint8(scales + j + minimum) & 63
  const packed = view.getUint8(scales + j + 4)
  const top = view.getUint8(scales + j - 4 + minimum) >> 6
  return (minimum ? packed >> 4 : packed & 15) | (top << 4)
}

/** Eight groups of 32 with a scale and a minimum each; pairs of groups share their bytes. */
function kQuant(highBits: boolean): Decode {
  return (view, at, y, out) => {
    const d = half(view, at)
    const dMinimum = half(view, at + 2)
    const scales = at + 4
    const high = at + 16
    const low = high + (highBits ? 32 : 0)
    for (let group = 0; group < 8; group++) {
      const scale = d * sixBits(view, scales, group, 0)
      const minimum = dMinimum * sixBits(view, scales, group, 4)
      for (let i = 0; i < 32; i++) {
        const byte = view.getUint8(low + (group >> 1) * 32 + i)
        let code = group & 1 ? byte >> 4 : byte & 15
        if (highBits) code |= ((view.getUint8(high + i) >> group) & 1) << 4
        y[out + group * 32 + i] = scale * code - minimum
      }
    }
  }
}

const decoders: Readonly<Partial<Record<GgmlType, Decode>>> = {
  F32(view, at, y, out) {
    y[out] = view.getFloat32(at, true)
  },
  F16(view, at, y, out) {
    y[out] = half(view, at)
  },
  BF16(view, at, y, out) {
    words[0] = view.getUint16(at, true) << 16
    y[out] = floats[0]
  },
  Q4_0: nibbles(16, false),
  Q4_1: nibbles(16, true),
  Q5_0: nibbles(32, false),
  Q5_1: nibbles(32, true),
  Q8_0(view, at, y, out) {
    const d = half(view, at)
    for (let i = 0; i < 32; i++) y[out + i] = d * view.getInt8(at + 2 + i)
  },
  Q4_K: kQuant(false),
  Q5_K: kQuant(true),
  // Two halves of 128: four quarters of 32 share 64 bytes of low bits and 32 of high ones; a scale per 16 values.
  Q6_K(view, at, y, out) {
    const d = half(view, at + 208)
    for (let i = 0; i < 256; i++) {
      const part = i >> 7
      const quarter = (i >> 5) & 3
      const low = view.getUint8(at + part * 64 + (quarter & 1) * 32 + (i & 31))
      const high = view.getUint8(at + 128 + part * 32 + (i & 31))
      const code = ((quarter & 2 ? low >> 4 : low & 15) | (((high >> (2 * quarter)) & 3) << 4)) - 32
      y[out + i] = d * view.getInt8(at + 192 + (i >> 4)) * code
    }
  },
}
