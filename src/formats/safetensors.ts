import { type ByteSource, checkRange } from './byte-source.ts'
import { parseJsonStrictly, quote } from './strict-json.ts'
import { type CpuTensor, elementBytes, type FileType } from './tensor.ts'

/** A safetensors file: tensors by name, and its string metadata. */
export interface Safetensors {
  readonly tensors: Map<string, CpuTensor>
  readonly metadata: Readonly<Record<string, string>>
}

/** One line of a safetensors file's header. */
export interface SafetensorsEntry {
  readonly name: string
  readonly dtype: FileType
  readonly shape: readonly number[]
  /** First byte, from the beginning of the file. */
  readonly offset: number
  readonly byteLength: number
}

/** What a safetensors file says before its weights. */
export interface SafetensorsHeader {
  /** By name, in the order of the file. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>
  readonly metadata: Readonly<Record<string, string>>
}

const mostHeaderBytes = 100_000_000

/**
 * Reads a safetensors file. Everything that its header claims is checked against the file before it is believed.
 * @param bytes the whole file; tensors are views of it, nothing is copied.
 * @throws SyntaxError naming what is wrong where.
 * @see safetensors 0.8, tensor.rs: `Metadata::validate`.
 */
export function parseSafetensors(bytes: Uint8Array): Safetensors {
  const headerBytes = headerLength(bytes, bytes.length)
  const { entries, metadata } = parseHeader(bytes.subarray(8, 8 + headerBytes), bytes.length)
  const tensors = new Map(
    [...entries.values()].map(({ name, dtype, shape, offset, byteLength }) => [
      name,
      { dtype, shape, data: bytes.subarray(offset, offset + byteLength) },
    ]),
  )
  return { tensors, metadata }
}

/**
 * Reads what a safetensors file says before its weights, and no more of it; checked as {@link parseSafetensors} does.
 * @throws SyntaxError naming what is wrong where.
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const start = await source.read(0, Math.min(9, source.length))
  const headerBytes = headerLength(start, source.length)
  checkRange(8, headerBytes, source.length)
  return parseHeader(await source.read(8, headerBytes), source.length)
}

const fault = (reason: string) => new SyntaxError(`Cannot read safetensors: ${reason}`)

/** Length of the header, from the first nine bytes of a file of `fileLength`. */
function headerLength(start: Uint8Array, fileLength: number): number {
  if (fileLength < 8) throw fault(`the file has ${fileLength} bytes, too few for the length of its header`)
  const claimed = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true)
  if (claimed > BigInt(mostHeaderBytes))
    throw fault(
      `its header claims ${claimed} bytes, more than the ${mostHeaderBytes} allowed: it is another kind of file, or damaged`,
    )
  const headerBytes = Number(claimed)
  if (8 + headerBytes > fileLength)
    throw fault(`its header claims ${headerBytes} bytes, but only ${fileLength - 8} follow: the file is truncated`)
  if (start[8] !== 0x7b) throw fault('its header does not begin with {')
  return headerBytes
}

function parseHeader(bytes: Uint8Array, fileLength: number): SafetensorsHeader {
  let header: Map<string, unknown>
  try {
    header = parseJsonStrictly(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as Map<string, unknown>
  } catch (error) {
    throw fault(`its header is not valid JSON (${error instanceof Error ? error.message : String(error)})`)
  }
  const metadata = readMetadata(header.get('__metadata__'))
  header.delete('__metadata__')
  const entries = [...header].map(([name, entry]) => readEntry(name, entry))
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end)
  const bodyOffset = 8 + bytes.length
  let end = 0
  for (const entry of entries) {
    if (entry.begin !== end)
      throw fault(`tensor ${quote(entry.name)} begins at ${entry.begin}, want ${end}: no holes or overlaps are allowed`)
    end = entry.end
  }
  if (end !== fileLength - bodyOffset)
    throw fault(
      `its tensors need ${end} bytes, but ${fileLength - bodyOffset} follow the header${end > fileLength - bodyOffset ? ': the file is truncated' : ''}`,
    )
  const located = entries.map(({ name, dtype, shape, begin, end }) => {
    return [name, { name, dtype, shape, offset: bodyOffset + begin, byteLength: end - begin }] as const
  })
  return { entries: new Map(located), metadata }
}

function readMetadata(value: unknown): Record<string, string> {
  if (value === undefined) return {}
  if (!(value instanceof Map) || [...value.values()].some((item) => typeof item !== 'string'))
    throw fault('__metadata__ must map strings to strings')
  return Object.fromEntries(value)
}

interface Entry {
  readonly name: string
  readonly dtype: FileType
  readonly shape: number[]
  readonly begin: number
  readonly end: number
}

function readEntry(name: string, value: unknown): Entry {
  const at = `tensor ${quote(name)}`
  if (!(value instanceof Map)) throw fault(`${at} must be an object`)
  for (const key of value.keys())
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets')
      throw fault(`${at} has an unknown field ${quote(key)}`)
  const dtype = value.get('dtype')
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype))
    throw fault(`${at} has dtype ${quote(String(dtype))}, which is unknown`)
  const shape = value.get('shape')
  const offsets = value.get('data_offsets')
  if (!isSizes(shape)) throw fault(`${at} must have a shape of non-negative integers`)
  if (!isSizes(offsets) || offsets.length !== 2) throw fault(`${at} must have two data_offsets`)
  const [begin, end] = offsets
  const bytes = shape.reduce((size, dimension) => size * dimension, elementBytes[dtype as FileType])
  const shown = `${dtype} [${shape.slice(0, 16).join(',')}${shape.length > 16 ? ',…' : ''}]`
  if (!(bytes <= Number.MAX_SAFE_INTEGER)) throw fault(`${at} is ${shown}, a shape whose size overflows`)
  if (bytes % 1 !== 0) throw fault(`${at} is ${shown}, which is not a whole number of bytes`)
  if (end - begin !== bytes)
    throw fault(`${at} is ${shown} and needs ${bytes} bytes, but its offsets give ${end - begin}`)
  return { name, dtype: dtype as FileType, shape, begin, end }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && (item as number) >= 0)
}

/** Name, dtype and shape of a tensor that is to be written. */
export type TensorOutline = Pick<SafetensorsEntry, 'name' | 'dtype' | 'shape'>

/**
 * Everything of a safetensors file before its weights, and the order in which the tensors' bytes must follow.
 * @param metadata written sorted; the format's own library writes it in any order.
 */
export function layOutSafetensors(
  outlines: Iterable<TensorOutline>,
  metadata: Readonly<Record<string, string>> = {},
): { header: Uint8Array<ArrayBuffer>; order: readonly string[]; bodyBytes: number } {
  const ranks = Object.keys(elementBytes)
  const sorted = [...outlines].sort(
    (a, b) => ranks.indexOf(b.dtype) - ranks.indexOf(a.dtype) || compareCodePoints(a.name, b.name),
  )
  const parts: string[] = []
  const keys = Object.keys(metadata).sort(compareCodePoints)
  if (keys.length > 0)
    parts.push(
      `"__metadata__":{${keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`).join(',')}}`,
    )
  let offset = 0
  for (const { name, dtype, shape } of sorted) {
    const end = offset + byteLengthOf(dtype, shape)
    const place = `[${offset},${end}]`
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":${place}}`)
    offset = end
  }
  const json = new TextEncoder().encode(`{${parts.join(',')}}`)
  const headerBytes = Math.ceil(json.length / 8) * 8
  const header = new Uint8Array(8 + headerBytes)
  new DataView(header.buffer).setBigUint64(0, BigInt(headerBytes), true)
  header.fill(0x20, 8)
  header.set(json, 8)
  return { header, order: sorted.map(({ name }) => name), bodyBytes: offset }
}

/** Bytes of a tensor. */
export function byteLengthOf(dtype: FileType, shape: readonly number[]): number {
  return shape.reduce((size, dimension) => size * dimension, elementBytes[dtype])
}

/** The order of Rust's strings, which compares UTF-8 bytes; JavaScript's own puts U+10000 before U+FFFF. */
function compareCodePoints(a: string, b: string): number {
  const [x, y] = [[...a], [...b]]
  for (let i = 0; i < Math.min(x.length, y.length); i++)
    if (x[i] !== y[i]) return x[i].codePointAt(0)! - y[i].codePointAt(0)!
  return x.length - y.length
}

/**
 * A safetensors file, byte for byte as the format's own library writes it: largest dtype first, then by name; compact
 * JSON padded with spaces to eight bytes.
 * @throws RangeError when a tensor's bytes do not fit its shape.
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, CpuTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  for (const [name, { dtype, shape, data }] of tensors)
    if (data.length !== byteLengthOf(dtype, shape))
      throw new RangeError(
        `Cannot write tensor ${name} ${dtype} [${shape.join(',')}]: it needs ${byteLengthOf(dtype, shape)} bytes, got ${data.length}`,
      )
  const outlines = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
  const { header, order, bodyBytes } = layOutSafetensors(outlines, metadata)
  const file = new Uint8Array(header.length + bodyBytes)
  file.set(header)
  let at = header.length
  for (const name of order) {
    const { data } = tensors.get(name)!
    file.set(data, at)
    at += data.length
  }
  return file
}
