import { parseJsonStrictly } from './strict-json.ts'
import { type CpuTensor, elementBytes, type FileType } from './tensor.ts'

/** A safetensors file: tensors by name, and its string metadata. */
export interface Safetensors {
  readonly tensors: Map<string, CpuTensor>
  readonly metadata: Readonly<Record<string, string>>
}

const mostHeaderBytes = 100_000_000

/**
 * Reads a safetensors file. Everything that its header claims is checked against the file before it is believed.
 * @param bytes the whole file; tensors are views of it, nothing is copied.
 * @throws SyntaxError naming what is wrong where.
 * @see safetensors 0.6, tensor.rs: `Metadata::validate`.
 */
export function parseSafetensors(bytes: Uint8Array): Safetensors {
  const fault = (reason: string) => new SyntaxError(`Cannot read safetensors: ${reason}`)
  if (bytes.length < 8) throw fault(`the file has ${bytes.length} bytes, too few for the length of its header`)
  const claimed = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  if (claimed > BigInt(mostHeaderBytes))
    throw fault(`its header claims ${claimed} bytes, more than the ${mostHeaderBytes} allowed`)
  const headerBytes = Number(claimed)
  if (8 + headerBytes > bytes.length)
    throw fault(`its header claims ${headerBytes} bytes, but only ${bytes.length - 8} follow: the file is truncated`)
  if (bytes[8] !== 0x7b) throw fault('its header does not begin with {')
  const body = bytes.subarray(8 + headerBytes)

  let header: Map<string, unknown>
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, 8 + headerBytes))
    header = parseJsonStrictly(text) as Map<string, unknown>
  } catch (error) {
    throw fault(`its header is not valid JSON (${error instanceof Error ? error.message : String(error)})`)
  }

  const metadata = readMetadata(header.get('__metadata__'), fault)
  header.delete('__metadata__')
  const entries = [...header].map(([name, entry]) => readEntry(name, entry, fault))
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end)
  let end = 0
  for (const entry of entries) {
    if (entry.begin !== end)
      throw fault(
        `tensor ${JSON.stringify(entry.name)} begins at ${entry.begin}, want ${end}: no holes or overlaps are allowed`,
      )
    end = entry.end
  }
  if (end !== body.length)
    throw fault(
      `its tensors need ${end} bytes, but ${body.length} follow the header${end > body.length ? ': the file is truncated' : ''}`,
    )
  const tensors = new Map(
    entries.map(({ name, dtype, shape, begin, end }) => [name, { dtype, shape, data: body.subarray(begin, end) }]),
  )
  return { tensors, metadata }
}

type Fault = (reason: string) => SyntaxError

function readMetadata(value: unknown, fault: Fault): Record<string, string> {
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

function readEntry(name: string, value: unknown, fault: Fault): Entry {
  const at = `tensor ${JSON.stringify(name)}`
  if (!(value instanceof Map)) throw fault(`${at} must be an object`)
  for (const key of value.keys())
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets')
      throw fault(`${at} has an unknown field ${JSON.stringify(key)}`)
  const dtype = value.get('dtype')
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype))
    throw fault(`${at} has dtype ${JSON.stringify(dtype)}, which is unknown`)
  const shape = value.get('shape')
  const offsets = value.get('data_offsets')
  if (!isSizes(shape)) throw fault(`${at} must have a shape of non-negative integers`)
  if (!isSizes(offsets) || offsets.length !== 2) throw fault(`${at} must have two data_offsets`)
  const [begin, end] = offsets
  const bytes = shape.reduce((size, dimension) => size * dimension, elementBytes[dtype as FileType])
  if (!Number.isSafeInteger(bytes)) throw fault(`${at} has a shape whose size overflows: [${shape.join(',')}]`)
  if (end - begin !== bytes)
    throw fault(`${at} is ${dtype} [${shape.join(',')}] and needs ${bytes} bytes, but its offsets give ${end - begin}`)
  return { name, dtype: dtype as FileType, shape, begin, end }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && (item as number) >= 0)
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
  const order = Object.keys(elementBytes)
  const sorted = [...tensors].sort(
    ([a, x], [b, y]) => order.indexOf(y.dtype) - order.indexOf(x.dtype) || (a < b ? -1 : a > b ? 1 : 0),
  )
  const parts: string[] = []
  const keys = Object.keys(metadata).sort()
  if (keys.length > 0)
    parts.push(
      `"__metadata__":{${keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`).join(',')}}`,
    )
  let offset = 0
  for (const [name, { dtype, shape, data }] of sorted) {
    const bytes = shape.reduce((size, dimension) => size * dimension, elementBytes[dtype])
    if (data.length !== bytes)
      throw new RangeError(
        `Cannot write tensor ${name} ${dtype} [${shape.join(',')}]: it needs ${bytes} bytes, got ${data.length}`,
      )
    const place = `[${offset},${offset + bytes}]`
    offset += bytes
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":${place}}`)
  }
  const json = new TextEncoder().encode(`{${parts.join(',')}}`)
  const headerBytes = Math.ceil(json.length / 8) * 8
  const file = new Uint8Array(8 + headerBytes + offset)
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true)
  file.fill(0x20, 8, 8 + headerBytes)
  file.set(json, 8)
  let at = 8 + headerBytes
  for (const [, { data }] of sorted) {
    file.set(data, at)
    at += data.length
  }
  return file
}
