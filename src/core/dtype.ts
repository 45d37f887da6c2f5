import { fromHalf, toHalf } from './half.ts'

/** Element types that a tensor on the GPU can have. */
export type DType = 'f32' | 'f16' | 'u32' | 'i32'

/** Element types that carry gradients. */
export type FloatType = 'f32' | 'f16'

/** Bytes of one element. */
export const bytesOf: Readonly<Record<DType, number>> = { f32: 4, f16: 2, u32: 4, i32: 4 }

/** The typed array that holds a tensor of a dtype on the host. f16 is held as its bits. */
export type HostArray<D extends DType> = D extends 'f32'
  ? Float32Array<ArrayBuffer>
  : D extends 'f16'
    ? Uint16Array<ArrayBuffer>
    : D extends 'u32'
      ? Uint32Array<ArrayBuffer>
      : Int32Array<ArrayBuffer>

/** A typed array over `buffer` for elements of `dtype`. */
export function viewAs<D extends DType>(dtype: D, buffer: ArrayBuffer, offset = 0, length?: number): HostArray<D> {
  const kinds = { f32: Float32Array, f16: Uint16Array, u32: Uint32Array, i32: Int32Array }
  return new kinds[dtype](buffer, offset, length) as HostArray<D>
}

/** Numbers as elements of `dtype`; f16 rounds to nearest even. */
export function encode<D extends DType>(dtype: D, values: ArrayLike<number>): HostArray<D> {
  if (dtype === 'f16') {
    // Newer engines round many times faster; only f32 input is sure to round the same way, once.
    if (native && values instanceof Float32Array) return new Uint16Array(new native(values).buffer) as HostArray<D>
    return Uint16Array.from(values, toHalf) as HostArray<D>
  }
  const kinds = { f32: Float32Array, u32: Uint32Array, i32: Int32Array }
  return new kinds[dtype as Exclude<D, 'f16'>](values) as HostArray<D>
}

const native = (globalThis as { Float16Array?: new (values: Float32Array) => { readonly buffer: ArrayBuffer } })
  .Float16Array

/** Elements of `dtype` as f32 or integers that arithmetic can use. */
export function decode<D extends DType>(dtype: D, data: HostArray<D>): Float32Array | Uint32Array | Int32Array {
  if (dtype === 'f16') return Float32Array.from(data as Uint16Array, fromHalf)
  return data as unknown as Float32Array | Uint32Array | Int32Array
}
