import type { Shape } from '../core/shape.ts'
import type { ByteSource } from './byte-source.ts'
import { dequantizeGgml } from './ggml-quants.ts'
import { type GgmlType, ggmlRowBytes, ggmlTypeOf } from './ggml-types.ts'
import { quote } from './strict-json.ts'

/** A value of the metadata. Integers past 2^53 are bigints; arrays of numbers are typed arrays. */
export type GgufValue = string | number | bigint | boolean | GgufArray

/** An array of the metadata. */
export type GgufArray = GgufNumbers | readonly GgufValue[]

/** Numbers of an array, in the type that the file gives them. */
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

/** One line of the tensor table. */
export interface GgufTensor {
  readonly name: string
  readonly type: GgmlType
  /** Row-major, as everywhere in Nexus: the reverse of the file's order. */
  readonly shape: Shape
  /** First byte, from the beginning of the file. */
  readonly offset: number
  readonly byteLength: number
}

/** What a GGUF file says before its weights. */
export interface Gguf {
  readonly version: 2 | 3
  readonly metadata: ReadonlyMap<string, GgufValue>
  /** By name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, GgufTensor>
  readonly alignment: number
  /** First byte of the weights. */
  readonly dataOffset: number
}

const firstWindow = 1 << 20
const mostHeaderBytes = 2 ** 29
const mostDimensions = 4
const mostNesting = 4

/**
 * Reads what a GGUF file says before its weights, and no more of it than that takes.
 * @throws SyntaxError naming what is wrong and at which byte.
 */
export async function readGguf(source: ByteSource): Promise<Gguf> {
  for (let window = firstWindow; ; window *= 4) {
    const length = Math.min(source.length, window)
    try {
      return parseGguf(await source.read(0, length), source.length)
    } catch (error) {
      if (!(error instanceof WindowEnded)) throw error
      if (window >= mostHeaderBytes)
        throw new SyntaxError(`Cannot read GGUF: its header is longer than ${mostHeaderBytes} bytes`)
    }
  }
}

/** The header goes on after the bytes at hand. */
class WindowEnded extends SyntaxError {}

/**
 * Parses the header, metadata and tensor table of a GGUF file, versions 2 and 3. Every count, size and offset is
 * checked against the file before anything is allocated for it; tensors must follow each other without a hole, as
 * ggml demands.
 * @param bytes the beginning of the file; all of it, unless `fileLength` says otherwise.
 * @throws SyntaxError naming what is wrong and at which byte.
 * @see ggml, docs/gguf.md and src/gguf.cpp.
 */
export function parseGguf(bytes: Uint8Array, fileLength: number = bytes.length): Gguf {
  const cursor = new Cursor(bytes, fileLength)
  if (cursor.bytes(4, 'the magic number').some((byte, i) => byte !== 'GGUF'.charCodeAt(i)))
    throw cursor.fault('it does not begin with GGUF', 0)
  const version = cursor.u32('the version')
  if (version !== 2 && version !== 3)
    throw cursor.fault(
      version > 0xffff
        ? 'it is big-endian; only little-endian files are read'
        : `its version is ${version}; supported are 2 and 3`,
      4,
    )
  const tensorCount = cursor.count('tensors', 24)
  const valueCount = cursor.count('metadata values', 13)

  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < valueCount; i++) {
    const at = cursor.at
    const key = cursor.string('a metadata key')
    if (metadata.has(key)) throw cursor.fault(`the metadata key ${quote(key)} appears twice`, at)
    metadata.set(key, readValue(cursor, cursor.u32(`the type of ${key}`), key, 0))
  }
  const alignment = metadata.get('general.alignment') ?? 32
  if (typeof alignment !== 'number' || !Number.isInteger(Math.log2(alignment)) || alignment < 1)
    throw cursor.fault(`general.alignment is ${String(alignment)}; it must be a power of two`)
  const tensors = readTable(cursor, tensorCount, alignment)
  return { version, metadata, alignment, ...tensors }
}

function readTable(cursor: Cursor, count: number, alignment: number): Pick<Gguf, 'tensors' | 'dataOffset'> {
  const relative = new Map<string, GgufTensor>()
  let end = 0
  for (let i = 0; i < count; i++) {
    const at = cursor.at
    const name = cursor.string('a tensor name')
    const label = `tensor ${quote(name)}`
    if (relative.has(name)) throw cursor.fault(`${label} appears twice`, at)
    const dimensions = cursor.u32(`the rank of ${label}`)
    if (dimensions > mostDimensions)
      throw cursor.fault(`${label} has ${dimensions} dimensions, at most ${mostDimensions} are allowed`, at)
    const shape = Array.from({ length: dimensions }, () => cursor.u64(`the shape of ${label}`)).reverse()
    const number = cursor.u32(`the type of ${label}`)
    const type = ggmlTypeOf(number)
    if (!type) throw cursor.fault(`${label} has type ${number}, which is unknown`, at)
    const row = ggmlRowBytes(type, shape.at(-1) ?? 1)
    if (row === undefined)
      throw cursor.fault(`${label} has rows of ${shape.at(-1)}, not a whole number of ${type} blocks`, at)
    const byteLength = shape.slice(0, -1).reduce((size, dimension) => size * dimension, row)
    const elements = shape.reduce((size, dimension) => size * dimension, 1)
    if (!Number.isSafeInteger(byteLength) || !Number.isSafeInteger(elements))
      throw cursor.fault(`${label} has a shape whose size overflows: [${shape.join(',')}]`, at)
    const offset = cursor.u64(`the offset of ${label}`)
    if (offset !== end)
      throw cursor.fault(
        `${label} begins at ${offset} of the weights, want ${end}: no holes or overlaps are allowed`,
        at,
      )
    relative.set(name, { name, type, shape, offset, byteLength })
    end = align(offset + byteLength, alignment)
  }
  const dataOffset = align(cursor.at, alignment)
  const tensors = new Map<string, GgufTensor>()
  for (const [name, tensor] of relative) {
    const offset = dataOffset + tensor.offset
    if (offset + tensor.byteLength > cursor.fileLength)
      throw cursor.fault(
        `tensor ${quote(name)} ends at byte ${offset + tensor.byteLength}, the file has ${cursor.fileLength}: it is truncated`,
      )
    tensors.set(name, { ...tensor, offset })
  }
  return { tensors, dataOffset }
}

function align(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment
}

/** Readers of metadata values by their type's number; 8 is a string and 9 an array. */
const scalars: Readonly<
  Record<number, readonly [size: number, read: (view: DataView, at: number) => number | bigint]>
> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  10: [8, (view, at) => view.getBigUint64(at, true)],
  11: [8, (view, at) => view.getBigInt64(at, true)],
  12: [8, (view, at) => view.getFloat64(at, true)],
}
const arrayKinds = {
  0: Uint8Array,
  1: Int8Array,
  2: Uint16Array,
  3: Int16Array,
  4: Uint32Array,
  5: Int32Array,
  6: Float32Array,
  10: BigUint64Array,
  11: BigInt64Array,
  12: Float64Array,
}
const boolType = 7
const stringType = 8
const arrayType = 9

function readValue(cursor: Cursor, type: number, key: string, depth: number): GgufValue {
  const scalar = scalars[type]
  if (scalar) {
    const at = cursor.skip(scalar[0], key)
    const value = scalar[1](cursor.view, at)
    return typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value
  }
  if (type === stringType) return cursor.string(key)
  if (type === boolType) {
    const [byte] = cursor.bytes(1, key)
    if (byte > 1) throw cursor.fault(`${key} is a boolean of value ${byte}`)
    return byte === 1
  }
  if (type !== arrayType) throw cursor.fault(`${key} has type ${type}, which is unknown`)
  if (depth >= mostNesting) throw cursor.fault(`${key} is nested too deeply`)
  const inner = cursor.u32(`the type of the elements of ${key}`)
  const kind = arrayKinds[inner as keyof typeof arrayKinds]
  if (kind) {
    const length = cursor.count(`elements of ${key}`, kind.BYTES_PER_ELEMENT)
    const copy = cursor.bytes(length * kind.BYTES_PER_ELEMENT, key).slice()
    return new kind(copy.buffer)
  }
  if (inner !== boolType && inner !== stringType && inner !== arrayType)
    throw cursor.fault(`the elements of ${key} have type ${inner}, which is unknown`)
  const length = cursor.count(`elements of ${key}`, { [boolType]: 1, [stringType]: 8, [arrayType]: 12 }[inner])
  const values: GgufValue[] = []
  for (let i = 0; i < length; i++) values.push(readValue(cursor, inner, key, depth + 1))
  return values
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A place in the file that moves forward and never past what is there. */
class Cursor {
  readonly view: DataView
  readonly fileLength: number
  readonly #bytes: Uint8Array
  at = 0

  constructor(bytes: Uint8Array, fileLength: number) {
    this.#bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.fileLength = fileLength
  }

  fault(reason: string, at = this.at): SyntaxError {
    return new SyntaxError(`Cannot read GGUF: ${reason} (byte ${at})`)
  }

  /** Steps over `length` bytes of `what` and tells where they begin. */
  skip(length: number, what: string): number {
    const { at } = this
    if (at + length > this.fileLength)
      throw this.fault(`${what} needs ${length} bytes, ${this.fileLength - at} are left: the file is truncated`)
    if (at + length > this.#bytes.length)
      throw new WindowEnded('Cannot read GGUF: its header goes on after the bytes given')
    this.at = at + length
    return at
  }

  bytes(length: number, what: string): Uint8Array {
    const at = this.skip(length, what)
    return this.#bytes.subarray(at, at + length)
  }

  u32(what: string): number {
    return this.view.getUint32(this.skip(4, what), true)
  }

  u64(what: string): number {
    const at = this.skip(8, what)
    const value = this.view.getBigUint64(at, true)
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.fault(`${what} is ${value}, past 2^53`, at)
    return Number(value)
  }

  /** A count of things that take at least `bytes` each. */
  count(what: string, bytes: number): number {
    const { at } = this
    const count = this.u64(`the number of ${what}`)
    if (count * bytes > this.fileLength - this.at)
      throw this.fault(`it claims ${count} ${what}, but only ${this.fileLength - this.at} bytes follow`, at)
    return count
  }

  string(what: string): string {
    const { at } = this
    const length = this.count(`bytes of ${what}`, 1)
    const bytes = this.bytes(length, what)
    try {
      return utf8.decode(bytes)
    } catch {
      throw this.fault(`${what} is not UTF-8`, at)
    }
  }
}

/**
 * Rows of a tensor as f32: what its blocks stand for. Only those rows are read.
 * @param first first row; rows are counted over all dimensions but the last.
 * @param count rows to read; all that follow `first` unless told.
 * @throws RangeError when the tensor has no such rows; TypeError for a type without a dequantiser.
 */
export async function readGgufRows(
  source: ByteSource,
  tensor: GgufTensor,
  first = 0,
  count?: number,
): Promise<Float32Array<ArrayBuffer>> {
  const { name, type, shape, offset, byteLength } = tensor
  const columns = shape.at(-1) ?? 1
  const rows = shape.slice(0, -1).reduce((size, dimension) => size * dimension, 1)
  const wanted = count ?? rows - first
  if (!Number.isInteger(first) || !Number.isInteger(wanted) || first < 0 || wanted < 0 || first + wanted > rows)
    throw new RangeError(`Cannot read rows ${first} to ${first + wanted} of ${name}: it has ${rows}`)
  const rowBytes = byteLength / Math.max(1, rows)
  const bytes = await source.read(offset + first * rowBytes, wanted * rowBytes)
  return dequantizeGgml(type, bytes, wanted * columns)
}
