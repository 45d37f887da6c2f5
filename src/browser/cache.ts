import { sha256 } from '../bundle/files.ts'

/** What was seen at an address the last time. */
export interface SeenBundle {
  readonly url: string
  readonly bundleId: string
  /** Text of manifest.json. */
  readonly manifest: string
  /** Text of manifest.sig.json, or null where the bundle is not signed. */
  readonly signature: string | null
  /** What tells one state of a .zip on a server from the next; null where the server does not say. */
  readonly version: string | null
  /** sha256 and bytes of its files. */
  readonly files: readonly { readonly sha256: string; readonly size: number }[]
}

/** A bundle in the cache. */
export interface CachedBundle {
  readonly url: string
  readonly bundleId: string
  /** Bytes of its files that are there; files that two bundles share count for both. */
  readonly bytes: number
  /** Whether all its files are there. */
  readonly whole: boolean
}

const folderName = 'nexus-bundles'

/**
 * Files of bundles in the browser's own file system (OPFS), by sha256, and what was last seen at each address. A file is
 * there whole or not at all: it is written under another name and moved.
 */
export class BundleCache {
  readonly #folder: FileSystemDirectoryHandle

  /** @param folder where the cache lies. */
  constructor(folder: FileSystemDirectoryHandle) {
    this.#folder = folder
  }

  /** The cache of this origin, or nothing where the browser has none (an old one, or a private window). */
  static async open(): Promise<BundleCache | undefined> {
    try {
      const root = await navigator.storage.getDirectory()
      return new BundleCache(await root.getDirectoryHandle(folderName, { create: true }))
    } catch {
      return undefined
    }
  }

  /** The bytes of a file, or nothing when it is not there or not what its name says; then it is removed. */
  async read(hash: string, size: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const file = await this.#fileOf(hash)
    if (!file) return undefined
    if (file.size === size) {
      const bytes = new Uint8Array(await file.arrayBuffer())
      if ((await sha256(bytes)) === hash) return bytes
    }
    await this.#remove(hash)
    return undefined
  }

  /** Whether a file is there. */
  async has(hash: string, size: number): Promise<boolean> {
    return (await this.#fileOf(hash))?.size === size
  }

  /**
   * Keeps a file.
   * @returns false when the browser has no room for it: the cache is then without it, and nothing is lost.
   */
  async write(hash: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    return this.#write(hash, bytes)
  }

  /** What was last seen at an address. */
  async seen(url: string): Promise<SeenBundle | undefined> {
    const file = await this.#fileOf(await recordName(url))
    if (!file) return undefined
    try {
      return JSON.parse(await file.text()) as SeenBundle
    } catch {
      return undefined
    }
  }

  /** Remembers what was seen at an address. */
  async remember(seen: SeenBundle): Promise<void> {
    await this.#write(await recordName(seen.url), new TextEncoder().encode(JSON.stringify(seen)))
  }

  /** The bundles that are there, in whole or in part. */
  async list(): Promise<CachedBundle[]> {
    const { sizes, records } = await this.#look()
    return records.map(({ url, bundleId, files }) => {
      const there = files.filter(({ sha256: hash, size }) => sizes.get(hash) === size)
      const bytes = there.reduce((sum, { size }) => sum + size, 0)
      return { url, bundleId, bytes, whole: there.length === files.length }
    })
  }

  /** Bytes of all files in the cache. */
  async size(): Promise<number> {
    const { sizes } = await this.#look()
    return [...sizes.values()].reduce((sum, size) => sum + size, 0)
  }

  /** Removes the bundle of an address, but not files that another one has too; all bundles unless one is named. */
  async remove(url?: string): Promise<void> {
    const { sizes, records } = await this.#look()
    if (url !== undefined) await this.#remove(await recordName(url))
    const kept = url === undefined ? [] : records.filter((record) => record.url !== url)
    const needed = new Set(kept.flatMap(({ files }) => files.map((file) => file.sha256)))
    const names = await Promise.all(kept.map((record) => recordName(record.url)))
    for (const name of sizes.keys()) if (!needed.has(name) && !names.includes(name)) await this.#remove(name)
  }

  async #look(): Promise<{ sizes: Map<string, number>; records: SeenBundle[] }> {
    const sizes = new Map<string, number>()
    const records: SeenBundle[] = []
    for await (const [name, handle] of this.#folder.entries()) {
      if (handle.kind !== 'file') continue
      const file = await (handle as FileSystemFileHandle).getFile()
      sizes.set(name, file.size)
      if (!name.endsWith('.json')) continue
      try {
        records.push(JSON.parse(await file.text()) as SeenBundle)
      } catch {
        // A record that cannot be read says nothing: its files are fetched again.
      }
    }
    return { sizes, records }
  }

  async #fileOf(name: string): Promise<File | undefined> {
    try {
      return await (await this.#folder.getFileHandle(name)).getFile()
    } catch {
      return undefined
    }
  }

  async #remove(name: string): Promise<void> {
    await this.#folder.removeEntry(name).catch(() => {})
  }

  async #write(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const part = `${name}.${crypto.randomUUID()}.part`
    try {
      const handle = (await this.#folder.getFileHandle(part, { create: true })) as MovableFile
      const file = await handle.createWritable()
      await file.write(bytes)
      await file.close()
      if (handle.move) await handle.move(name)
      else {
        // What is written through `createWritable` appears when it is closed, whole.
        const final = await (await this.#folder.getFileHandle(name, { create: true })).createWritable()
        await final.write(bytes)
        await final.close()
        await this.#remove(part)
      }
      return true
    } catch {
      await this.#remove(part)
      return false
    }
  }
}

/** Part of the standard of file systems, and of no type library yet. */
interface MovableFile extends FileSystemFileHandle {
  move?(name: string): Promise<void>
}

async function recordName(url: string): Promise<string> {
  return `${await sha256(url)}.json`
}
