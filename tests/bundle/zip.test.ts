import { zipSync } from 'fflate'
import { describe, expect, test } from 'vitest'
import { MemoryFiles } from '../../src/bundle/files.ts'
import { verifyBundle } from '../../src/bundle/verify.ts'
import { writeZip, ZipFiles } from '../../src/bundle/zip.ts'
import { BundleError } from '../../src/core/errors.ts'
import { memorySource } from '../../src/formats/byte-source.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { text, tinyBundle } from './tiny-bundle.ts'

type Bytes = Uint8Array<ArrayBuffer>
const good = await tinyBundle()
const zip = await writeZip(good)
const open = (bytes: Bytes) => ZipFiles.open(memorySource(bytes))
const time = () => new Date(1980, 0, 1)
/** An archive made by fflate, of any names. */
const archive = (entries: Record<string, Bytes>, level: 0 | 9 = 9) =>
  zipSync(entries, { level, mtime: time() }) as Bytes
const inFolder = (name: string) => `nexus_bundle_v1/${name}`

/** Where in the archive the directory begins, and where the entry of `name` in it. */
function places(bytes: Bytes, name: string) {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const directory = view.getUint32(bytes.length - 6, true)
  for (let at = directory; ; ) {
    const nameBytes = view.getUint16(at + 28, true)
    const local = view.getUint32(at + 42, true)
    if (new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameBytes)) === inFolder(name))
      return { view, directory, entry: at, local }
    at += 46 + nameBytes
  }
}
/** The archive with some bytes changed, by the places of one of its entries. */
const patched = (name: string, change: (at: ReturnType<typeof places>) => void): Bytes => {
  const bytes = zip.slice()
  change(places(bytes, name))
  return bytes
}

test('a bundle comes out of its archive as it went in, with equal bytes each time', () =>
  withoutLeaks(async () => {
    expect(await writeZip(await tinyBundle())).toEqual(zip)
    const files = await open(zip)
    expect(await files.list()).toEqual(await good.list())
    for (const path of await good.list()) {
      expect(await files.read(path), path).toEqual(await good.read(path))
      expect(await files.size(path)).toBe(await good.size(path))
    }
    expect(await verifyBundle(files)).toMatchObject({ ok: true })
    using model = await NexusModel.load(files, { gpu })
    using folder = await NexusModel.load(good, { gpu })
    const options = { prompt: 'abc', capability: 'add' }
    expect(await model.logits(options)).toEqual(await folder.logits(options))
  }))

test('weights are stored, so that they can be read where they lie; text is deflated', () => {
  const method = (name: string) => {
    const { view, entry } = places(zip, name)
    return view.getUint16(entry + 10, true)
  }
  expect(method('backbone/backbone.safetensors')).toBe(0)
  expect(method('tokenizer/tokenizer.json')).toBe(8)
})

test('the bytes do not depend on the time zone', async () => {
  const zone = process.env.TZ
  try {
    process.env.TZ = 'Pacific/Kiritimati'
    expect(await writeZip(good)).toEqual(zip)
  } finally {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  }
})

const lie = 'LICENSE'
describe('an archive is refused when it is opened', () => {
  const cases: [string, () => Bytes, string][] = [
    ['nothing', () => new Uint8Array(0), 'truncated'],
    ['one byte short', () => zip.slice(0, -1), 'truncated'],
    ['cut in the middle', () => zip.slice(0, zip.length >> 1), 'truncated'],
    ['its beginning cut off', () => zip.slice(100), 'does not lie before its end'],
    ['something before it', () => Uint8Array.of(1, 2, 3, ...zip), 'does not lie before its end'],
    ['something behind it', () => Uint8Array.of(...zip, 1), 'does not end where the file ends'],
    ['zip-slip', () => archive({ [inFolder('../../x')]: text('x') }), 'leads out of the bundle'],
    ['zip-slip at the top', () => archive({ '../x': text('x') }), 'is not in the folder'],
    ['an absolute path', () => archive({ '/etc/passwd': text('x') }), 'is not in the folder'],
    ['a backslash', () => archive({ [inFolder('..\\x')]: text('x') }), 'characters that no path'],
    ['another folder', () => archive({ 'other/LICENSE': text('x') }), 'is not in the folder'],
    ['a name with NUL', () => archive({ [inFolder('LICENSE\0.js')]: text('x') }), 'characters that no path'],
    [
      'case twins',
      () => archive({ [inFolder('LICENSE')]: text('x'), [inFolder('License')]: text('y') }),
      'one name on some systems',
    ],
    [
      'a name twice',
      () => {
        const bytes = archive({ [inFolder('src/aa.js')]: text('x'), [inFolder('src/ab.js')]: text('x') }, 0)
        for (let i = 0; i < bytes.length; i++)
          if (bytes[i] === 0x62 && bytes[i - 1] === 0x61 && bytes[i + 1] === 0x2e) bytes[i] = 0x61
        return bytes
      },
      'is there twice',
    ],
    [
      'a link',
      () =>
        zipSync({
          [inFolder(lie)]: [text('/etc/passwd'), { os: 3, attrs: (0o120777 << 16) >>> 0, mtime: time() }],
        }) as Bytes,
      'no regular file but a link',
    ],
    ['a folder of its own', () => archive({ [inFolder('src/')]: text('') }), 'leads out of the bundle'],
    [
      'a comment',
      () => zipSync({ [inFolder(lie)]: [text('x'), { comment: 'hello', mtime: time() }] }) as Bytes,
      'has extras',
    ],
    [
      'an extra field',
      () => zipSync({ [inFolder(lie)]: [text('x'), { extra: { 1: text('hidden') }, mtime: time() }] }) as Bytes,
      'has extras',
    ],
    ['encryption', () => patched(lie, ({ view, entry }) => view.setUint16(entry + 8, 1, true)), 'has extras'],
    [
      'another method',
      () => patched(lie, ({ view, entry }) => view.setUint16(entry + 10, 12, true)),
      'packed by method 12',
    ],
    [
      'a bomb by its own words',
      () => patched('README.md', ({ view, entry }) => view.setUint32(entry + 24, 2 ** 30, true)),
      'it is a bomb',
    ],
    [
      'a stored file of two sizes',
      () => patched('adapters/add.safetensors', ({ view, entry }) => view.setUint32(entry + 24, 9, true)),
      'its two sizes differ',
    ],
    [
      'a local header that says another size',
      () => patched(lie, ({ view, local }) => view.setUint32(local + 22, 3, true)),
      'described twice, and differently',
    ],
    [
      'a local header of another name',
      () => patched(lie, ({ view, local }) => view.setUint8(local + 30, 0x6d)),
      'described twice, and differently',
    ],
    [
      'overlapping files',
      () => patched(lie, ({ view, entry, local }) => view.setUint32(entry + 42, local + 1, true)),
      'no holes or overlaps',
    ],
    [
      'a broken directory',
      () => patched(lie, ({ view, entry }) => view.setUint32(entry, 0, true)),
      'its directory is broken',
    ],
    [
      'too many files',
      () => {
        const bytes = zip.slice()
        const view = new DataView(bytes.buffer)
        for (const at of [14, 12]) view.setUint16(bytes.length - at, 20_000, true)
        return bytes
      },
      'more than 10000',
    ],
    [
      'several parts',
      () => {
        const bytes = zip.slice()
        bytes[bytes.length - 18] = 1
        return bytes
      },
      'several parts',
    ],
  ]
  test.each(cases)('%s', async (_, make, reason) => {
    const error = await open(make()).then(
      () => undefined,
      (fault: unknown) => fault,
    )
    expect(error).toBeInstanceOf(BundleError)
    expect((error as Error).message).toContain(reason)
  })
})

describe('what an entry holds is checked when it is read', () => {
  const big = text('x'.repeat(100_000))
  const packed = () => archive({ [inFolder('src/big.js')]: big })
  /** Another size in both headers, as a careful attacker would write it. */
  const claiming = (size: number) => {
    const bytes = packed()
    const { view, entry, local } = places(bytes, 'src/big.js')
    view.setUint32(entry + 24, size, true)
    view.setUint32(local + 22, size, true)
    return bytes
  }
  test('more than it claims stops early', async () => {
    await expect((await open(claiming(50))).read('src/big.js')).rejects.toThrow('more than the 50 bytes')
  })
  test('less than it claims', async () => {
    await expect((await open(claiming(100_001))).read('src/big.js')).rejects.toThrow('it claims 100001')
  })
  test('a changed byte, deflated and stored', async () => {
    const bytes = packed()
    bytes[bytes.length - 120] ^= 0x55
    await expect((await open(bytes)).read('src/big.js')).rejects.toThrow(BundleError)
    const stored = archive({ [inFolder('src/big.js')]: big }, 0)
    stored[1000] ^= 1
    await expect((await open(stored)).read('src/big.js')).rejects.toThrow(
      'its checksum is not the archive’s'.replace('’', "'"),
    )
  })
})

test('an archive of 4 GiB is not written', async () => {
  const files = new MemoryFiles()
  // One claimed length is enough: nothing of that size is made.
  files.read = async () => ({ length: 2 ** 32 }) as Bytes
  await files.write('LICENSE', text('x'))
  await expect(writeZip(files)).rejects.toThrow('4 GiB')
})

test('flipping any one bit of an archive never gives other contents silently', async () => {
  const wanted = new Map(
    await Promise.all((await good.list()).map(async (path) => [path, await good.read(path)] as const)),
  )
  for (let at = 0; at < zip.length; at += 37) {
    const bytes = zip.slice()
    bytes[at] ^= 1 << (at % 8)
    try {
      const files = await open(bytes)
      for (const path of await files.list()) expect(await files.read(path)).toEqual(wanted.get(path))
      expect(await files.list()).toEqual([...wanted.keys()])
    } catch (error) {
      // A flipped bit in a name may hit two headers at most once: it is refused, or read as it was.
      if (!(error instanceof BundleError)) throw error
    }
  }
})
