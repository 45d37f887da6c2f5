import { Inflate, zipSync } from 'fflate'
import { BundleError } from '../core/errors.ts'
import type { ByteSource } from '../formats/byte-source.ts'
import { checkNames, type Files } from './files.ts'
import { bundleFolder, kindOf } from './layout.ts'

const endBytes = 22
const mostEntries = 10_000
/** Most bytes that one compressed file may come to; weights are stored as they are. */
const mostInflated = 2 ** 28
/** Deflate cannot do better. */
const mostRatio = 1032
// 1980-01-01 00:00, where the calendar of the format begins, in whichever time zone it is written.
const beginning = () => new Date(1980, 0, 1)

/**
 * A bundle as a .zip: one folder, weights stored, everything else deflated, all times the same. The same files give the
 * same bytes.
 * @throws BundleError when it would pass 4 GiB, the most that the format holds without extensions.
 */
export async function writeZip(files: Files): Promise<Uint8Array<ArrayBuffer>> {
  const entries: Parameters<typeof zipSync>[0] = {}
  let total = 0
  for (const path of (await files.list()).sort()) {
    const bytes = await files.read(path)
    total += bytes.length
    if (total >= 2 ** 32 - 2 ** 24)
      throw new BundleError('Cannot write a .zip of 4 GiB or more: ship the folder instead')
    entries[`${bundleFolder}/${path}`] = [bytes, { level: kindOf(path) === 'weights' ? 0 : 9, mtime: beginning() }]
  }
  return zipSync(entries)
}

interface Entry {
  readonly path: string
  readonly stored: boolean
  readonly crc: number
  readonly size: number
  readonly packedSize: number
  /** Where its local header begins. */
  readonly offset: number
}

/**
 * The files of a bundle's .zip, read where they lie: nothing is unpacked to disk. An archive has one reading or none:
 * every byte belongs to exactly one entry, and what the central directory claims is checked before anything is inflated.
 */
export class ZipFiles implements Files {
  readonly #source: ByteSource
  readonly #entries: ReadonlyMap<string, Entry>

  private constructor(source: ByteSource, entries: ReadonlyMap<string, Entry>) {
    this.#source = source
    this.#entries = entries
  }

  /** Reads an archive's directory. @throws BundleError naming what is wrong with it. */
  static async open(source: ByteSource): Promise<ZipFiles> {
    const directory = await readDirectory(source)
    const entries = readEntries(directory.bytes, directory.count)
    const prefix = `${bundleFolder}/`
    const outside = entries.find(({ path }) => !path.startsWith(prefix))
    if (outside) throw fault(`${JSON.stringify(outside.path)} is not in the folder ${prefix}`)
    const files = entries.map((entry) => ({ ...entry, path: entry.path.slice(prefix.length) }))
    checkNames(files.map(({ path }) => path))
    await checkPlaces(source, entries, directory.offset)
    return new ZipFiles(source, new Map(files.map((entry) => [entry.path, entry])))
  }

  async list(): Promise<string[]> {
    return [...this.#entries.keys()].sort()
  }

  async size(path: string): Promise<number> {
    return this.#entry(path).size
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const { offset, stored, size, packedSize, crc } = this.#entry(path)
    const nameBytes = new TextEncoder().encode(`${bundleFolder}/${path}`).length
    const packed = await this.#source.read(offset + 30 + nameBytes, packedSize)
    const bytes = stored ? packed : inflate(path, packed, size)
    if (crc32(bytes) !== crc) throw fault(`${path} was altered: its checksum is not the archive's`)
    return bytes
  }

  #entry(path: string): Entry {
    const entry = this.#entries.get(path)
    if (!entry) throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    return entry
  }
}

function fault(reason: string): BundleError {
  return new BundleError(`The .zip is refused: ${reason}`)
}

async function readDirectory(source: ByteSource) {
  if (source.length < endBytes) throw fault(`it has ${source.length} bytes: it is truncated`)
  const end = view(await source.read(source.length - endBytes, endBytes))
  if (end.getUint32(0, true) !== 0x06054b50 || end.getUint16(20, true) !== 0)
    throw fault('its directory does not end where the file ends: it is truncated, or something was put behind it')
  const [disk, directoryDisk, here, count] = [4, 6, 8, 10].map((at) => end.getUint16(at, true))
  const [size, offset] = [end.getUint32(12, true), end.getUint32(16, true)]
  if (disk !== 0 || directoryDisk !== 0 || here !== count) throw fault('it is one of several parts')
  if (count > mostEntries) throw fault(`it claims ${count} files, more than ${mostEntries}`)
  if (offset + size !== source.length - endBytes)
    throw fault(
      'its directory does not lie before its end: it is truncated, larger than 4 GiB, or something was put in',
    )
  return { count, offset, bytes: await source.read(offset, size) }
}

function readEntries(bytes: Uint8Array<ArrayBuffer>, count: number): Entry[] {
  const data = view(bytes)
  const entries: Entry[] = []
  let at = 0
  let total = 0
  for (let i = 0; i < count; i++) {
    if (at + 46 > bytes.length || data.getUint32(at, true) !== 0x02014b50) throw fault('its directory is broken')
    const u16 = (offset: number) => data.getUint16(at + offset, true)
    const u32 = (offset: number) => data.getUint32(at + offset, true)
    const [nameBytes, extraBytes, commentBytes] = [u16(28), u16(30), u16(32)]
    const path = decode(bytes.subarray(at + 46, at + 46 + nameBytes))
    const shown = JSON.stringify(path)
    const [flags, method, crc, packedSize, size] = [u16(8), u16(10), u32(16), u32(20), u32(24)]
    if (extraBytes !== 0 || commentBytes !== 0 || (flags & ~0x800) !== 0)
      throw fault(`${shown} has extras (encryption, comments, late sizes): make it with nexus pack --zip`)
    if (method !== 0 && method !== 8) throw fault(`${shown} is packed by method ${method}; want stored or deflated`)
    const type = (u32(38) >>> 16) & 0xf000
    if (type !== 0 && type !== 0x8000) throw fault(`${shown} is no regular file but a link, folder or device`)
    if (method === 0 && size !== packedSize) throw fault(`${shown} is stored, but its two sizes differ`)
    if (method === 8 && (size > mostInflated || size > mostRatio * packedSize))
      throw fault(`${shown} claims ${size} bytes out of ${packedSize}: it is a bomb`)
    total += size
    entries.push({ path, stored: method === 0, crc, size, packedSize, offset: u32(42) })
    at += 46 + nameBytes
  }
  if (at !== bytes.length) throw fault('its directory holds more than its files')
  if (total > 2 ** 32) throw fault(`its files claim ${total} bytes`)
  return entries
}

/** Every byte before the directory belongs to one entry, and each local header says what the directory says. */
async function checkPlaces(source: ByteSource, entries: readonly Entry[], directoryOffset: number): Promise<void> {
  let at = 0
  for (const entry of [...entries].sort((a, b) => a.offset - b.offset)) {
    const name = new TextEncoder().encode(entry.path)
    const shown = JSON.stringify(entry.path)
    if (entry.offset !== at) throw fault(`${shown} begins at ${entry.offset}, want ${at}: no holes or overlaps`)
    at += 30 + name.length + entry.packedSize
    if (at > directoryOffset) throw fault(`${shown} reaches into the directory`)
    const bytes = await source.read(entry.offset, 30 + name.length)
    const header = view(bytes)
    const same =
      header.getUint32(0, true) === 0x04034b50 &&
      (header.getUint16(6, true) & ~0x800) === 0 &&
      header.getUint16(8, true) === (entry.stored ? 0 : 8) &&
      header.getUint32(14, true) === entry.crc &&
      header.getUint32(18, true) === entry.packedSize &&
      header.getUint32(22, true) === entry.size &&
      header.getUint16(26, true) === name.length &&
      header.getUint16(28, true) === 0 &&
      name.every((byte, i) => byte === bytes[30 + i])
    if (!same) throw fault(`${shown} is described twice, and differently`)
  }
  if (at !== directoryOffset) throw fault('something lies between its files and its directory')
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw fault('a name is not UTF-8')
  }
}

/** Exactly `size` bytes, in slices, so that one that comes to more is stopped early. */
function inflate(path: string, packed: Uint8Array<ArrayBuffer>, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size)
  let at = 0
  const stream = new Inflate((chunk) => {
    if (at + chunk.length > size) throw fault(`${path} comes to more than the ${size} bytes that it claims`)
    bytes.set(chunk, at)
    at += chunk.length
  })
  const slice = 2 ** 14
  try {
    for (let begin = 0; begin < packed.length; begin += slice)
      stream.push(packed.subarray(begin, begin + slice), begin + slice >= packed.length)
  } catch (error) {
    throw error instanceof BundleError ? error : fault(`${path} cannot be inflated (${(error as Error).message})`)
  }
  if (at !== size) throw fault(`${path} comes to ${at} bytes, it claims ${size}`)
  return bytes
}

function view({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength)
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  return value
})

function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff
  for (const byte of bytes) value = crcTable[(value ^ byte) & 255] ^ (value >>> 8)
  return (value ^ 0xffffffff) >>> 0
}
