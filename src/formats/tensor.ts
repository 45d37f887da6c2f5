import { fromHalf, toHalf } from '../core/half.ts'
import type { Shape } from '../core/shape.ts'
import { sizeOf } from '../core/shape.ts'

/** Bytes of one element of each safetensors dtype, in the order of the format's own enumeration. */
export const elementBytes = {
  BOOL: 1,
  F4: 0.5,
  F6_E2M3: 0.75,
  F6_E3M2: 0.75,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  C64: 8,
  F64: 8,
  I64: 8,
  U64: 8,
} as const

/** Element types that a file can hold. */
export type FileType = keyof typeof elementBytes

/** Element types that {@link cpuTensor} writes. */
export type WritableType = 'F64' | 'F32' | 'F16' | 'BF16' | 'U32' | 'I32' | 'U16' | 'U8' | 'I8'

/** A tensor as bytes of a file: little-endian, row-major. */
export interface CpuTensor {
  readonly dtype: FileType
  readonly shape: Shape
  readonly data: Uint8Array
}

/**
 * The elements as f32.
 * @throws TypeError for a dtype that is not a float.
 */
export function toFloat32({ dtype, shape, data }: CpuTensor): Float32Array<ArrayBuffer> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const y = new Float32Array(sizeOf(shape))
  const read = {
    F32: (i: number) => view.getFloat32(4 * i, true),
    F16: (i: number) => fromHalf(view.getUint16(2 * i, true)),
    BF16: (i: number) => bfloat(view.getUint16(2 * i, true)),
    F64: (i: number) => view.getFloat64(8 * i, true),
  }[dtype as string]
  if (!read) throw new TypeError(`Cannot read a tensor of ${dtype} as f32: give F32, F16, BF16 or F64`)
  for (let i = 0; i < y.length; i++) y[i] = read(i)
  return y
}

/**
 * The elements as f64.
 * @throws TypeError for a dtype that is not a float.
 */
export function toFloat64(tensor: CpuTensor): Float64Array<ArrayBuffer> {
  if (tensor.dtype !== 'F64') return Float64Array.from(toFloat32(tensor))
  const view = new DataView(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength)
  return Float64Array.from({ length: sizeOf(tensor.shape) }, (_, i) => view.getFloat64(8 * i, true))
}

/**
 * The elements of a tensor of U8, U16 or U32 as u32.
 * @throws TypeError for another dtype.
 */
export function toUint32({ dtype, shape, data }: CpuTensor): Uint32Array<ArrayBuffer> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const read = {
    U8: (i: number) => view.getUint8(i),
    U16: (i: number) => view.getUint16(2 * i, true),
    U32: (i: number) => view.getUint32(4 * i, true),
  }[dtype as string]
  if (!read) throw new TypeError(`Cannot read a tensor of ${dtype} as u32: give U8, U16 or U32`)
  return Uint32Array.from({ length: sizeOf(shape) }, (_, i) => read(i))
}

const scratch = new DataView(new ArrayBuffer(4))

function bfloat(bits: number): number {
  scratch.setUint32(0, bits << 16)
  return scratch.getFloat32(0)
}

/** The bits of the bfloat16 nearest to `value`, ties to even; NaN stays NaN. */
function toBfloat(value: number): number {
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

/**
 * A tensor for a file, from numbers.
 * @param dtype F64, F32, F16 and BF16 (rounded to nearest even), or a type of integers.
 * @throws RangeError when the number of values is not the shape's.
 */
export function cpuTensor(dtype: WritableType, shape: Shape, values: ArrayLike<number>): CpuTensor {
  const size = sizeOf(shape)
  if (values.length !== size)
    throw new RangeError(`Cannot make a tensor [${shape.join(',')}]: it has ${size} elements, got ${values.length}`)
  const data = new Uint8Array(size * elementBytes[dtype])
  const view = new DataView(data.buffer)
  const write = {
    F64: (i: number) => view.setFloat64(8 * i, values[i], true),
    F32: (i: number) => view.setFloat32(4 * i, values[i], true),
    F16: (i: number) => view.setUint16(2 * i, toHalf(values[i]), true),
    BF16: (i: number) => view.setUint16(2 * i, toBfloat(values[i]), true),
    U32: (i: number) => view.setUint32(4 * i, values[i], true),
    I32: (i: number) => view.setInt32(4 * i, values[i], true),
    U16: (i: number) => view.setUint16(2 * i, values[i], true),
    U8: (i: number) => view.setUint8(i, values[i]),
    I8: (i: number) => view.setInt8(i, values[i]),
  }[dtype]
  for (let i = 0; i < size; i++) write(i)
  return { dtype, shape, data }
}
