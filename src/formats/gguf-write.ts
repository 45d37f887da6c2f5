import type { Shape } from '../core/shape.ts'
import { type GgmlType, ggmlRowBytes, ggmlTypes } from './ggml-types.ts'

const types = {
  u8: [0, 1],
  i8: [1, 1],
  u16: [2, 2],
  i16: [3, 2],
  u32: [4, 4],
  i32: [5, 4],
  f32: [6, 4],
  bool: [7, 1],
  string: [8, 0],
  u64: [10, 8],
  i64: [11, 8],
  f64: [12, 8],
} as const

/** A value of the metadata with the type it is written as; arrays have one type for all elements. */
export type GgufTypedValue = {
  readonly [T in keyof typeof types]: readonly [T, GgufScalar<T> | readonly GgufScalar<T>[]]
}[keyof typeof types]

type GgufScalar<T> = T extends 'bool'
  ? boolean
  : T extends 'string'
    ? string
    : T extends 'u64' | 'i64'
      ? bigint
      : number

/** A tensor to write: bytes as ggml lays them out, row-major. */
export interface GgufTensorData {
  readonly type: GgmlType
  readonly shape: Shape
  readonly data: Uint8Array
}

/**
 * A GGUF file of version 3, byte for byte as ggml's own Python library writes it: metadata and tensors in the order
 * given, alignment 32.
 * @throws RangeError when a tensor's bytes do not fit its shape.
 */
export function writeGguf(
  metadata: ReadonlyMap<string, GgufTypedValue>,
  tensors: ReadonlyMap<string, GgufTensorData>,
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = []
  let length = 0
  const put = (bytes: Uint8Array) => {
    parts.push(bytes)
    length += bytes.length
  }
  const number = (type: Exclude<keyof typeof types, 'string'>, value: number | bigint | boolean) =>
    put(encode(type, value))
  const text = (value: string) => {
    const bytes = new TextEncoder().encode(value)
    number('u64', BigInt(bytes.length))
    put(bytes)
  }
  const scalar = (type: keyof typeof types, value: number | bigint | boolean | string) =>
    type === 'string' ? text(value as string) : number(type, value as number)
  const pad = () => put(new Uint8Array((32 - (length % 32)) % 32))

  put(new TextEncoder().encode('GGUF'))
  number('u32', 3)
  number('u64', BigInt(tensors.size))
  number('u64', BigInt(metadata.size))
  for (const [key, [type, value]] of metadata) {
    text(key)
    if (Array.isArray(value)) {
      number('u32', 9)
      number('u32', types[type][0])
      number('u64', BigInt(value.length))
      for (const item of value) scalar(type, item)
    } else {
      number('u32', types[type][0])
      scalar(type, value as number)
    }
  }
  let offset = 0
  for (const [name, { type, shape, data }] of tensors) {
    const row = ggmlRowBytes(type, shape.at(-1) ?? 1)
    const bytes = row === undefined ? undefined : shape.slice(0, -1).reduce((size, dimension) => size * dimension, row)
    if (data.length !== bytes)
      throw new RangeError(
        `Cannot write ${name} ${type} [${shape.join(',')}]: it needs ${bytes ?? 'whole blocks of'} bytes, got ${data.length}`,
      )
    text(name)
    number('u32', shape.length)
    for (const dimension of [...shape].reverse()) number('u64', BigInt(dimension))
    number('u32', ggmlTypes[type][0])
    number('u64', BigInt(offset))
    offset += Math.ceil(bytes / 32) * 32
  }
  pad()
  for (const { data } of tensors.values()) {
    put(data)
    pad()
  }
  const file = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    file.set(part, at)
    at += part.length
  }
  return file
}

function encode(type: Exclude<keyof typeof types, 'string'>, value: number | bigint | boolean): Uint8Array {
  const bytes = new Uint8Array(types[type][1])
  const view = new DataView(bytes.buffer)
  const write = {
    u8: () => view.setUint8(0, value as number),
    i8: () => view.setInt8(0, value as number),
    u16: () => view.setUint16(0, value as number, true),
    i16: () => view.setInt16(0, value as number, true),
    u32: () => view.setUint32(0, value as number, true),
    i32: () => view.setInt32(0, value as number, true),
    f32: () => view.setFloat32(0, value as number, true),
    bool: () => view.setUint8(0, value ? 1 : 0),
    u64: () => view.setBigUint64(0, value as bigint, true),
    i64: () => view.setBigInt64(0, value as bigint, true),
    f64: () => view.setFloat64(0, value as number, true),
  }[type]
  write()
  return bytes
}
