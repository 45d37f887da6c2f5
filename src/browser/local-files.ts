import type { Files } from '../bundle/files.ts'
import { type BundleSource, isFiles, type PlacedFile } from '../bundle/source.ts'
import { type ByteSource, checkRange } from '../formats/byte-source.ts'

/** The files of a folder that a person picked; they are read when they are asked for. */
export class DirectoryFiles implements Files {
  readonly #folder: FileSystemDirectoryHandle

  constructor(folder: FileSystemDirectoryHandle) {
    this.#folder = folder
  }

  async list(): Promise<string[]> {
    const paths: string[] = []
    const walk = async (folder: FileSystemDirectoryHandle, prefix: string): Promise<void> => {
      for await (const [name, handle] of folder.entries())
        if (handle.kind === 'file') paths.push(prefix + name)
        else await walk(handle as FileSystemDirectoryHandle, `${prefix}${name}/`)
    }
    await walk(this.#folder, '')
    return paths.sort()
  }

  async size(path: string): Promise<number> {
    return (await this.#file(path)).size
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await (await this.#file(path)).arrayBuffer())
  }

  async #file(path: string): Promise<File> {
    const parts = path.split('/')
    const name = parts.pop()!
    try {
      let folder = this.#folder
      for (const part of parts) folder = await folder.getDirectoryHandle(part)
      return await (await folder.getFileHandle(name)).getFile()
    } catch {
      throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    }
  }
}

/** Files that a person chose, by their paths in the bundle. */
export class PickedFiles implements Files {
  readonly #files: ReadonlyMap<string, File>

  constructor(files: readonly PlacedFile[]) {
    this.#files = new Map(files.map(({ path, file }) => [path, file]))
  }

  async list(): Promise<string[]> {
    return [...this.#files.keys()].sort()
  }

  async size(path: string): Promise<number> {
    return this.#file(path).size
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await this.#file(path).arrayBuffer())
  }

  #file(path: string): File {
    const file = this.#files.get(path)
    if (!file) throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    return file
  }
}

/** A Blob as a source of bytes: what is not read stays where it is. */
export function blobSource(blob: Blob): ByteSource {
  return {
    length: blob.size,
    async read(offset, length) {
      checkRange(offset, length, blob.size)
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer())
    },
  }
}

/** A source in the form in which it can be sent to a worker: lists become paths, addresses are whole. */
export function portable(
  source: Exclude<BundleSource, Files>,
): string | Blob | FileSystemDirectoryHandle | PlacedFile[] {
  if (typeof source === 'string' || source instanceof URL) return new URL(source, globalThis.location?.href).href
  if (source instanceof Blob) return source
  if ('kind' in source) {
    if (source.kind === 'directory') return source
    throw new TypeError('Cannot open a bundle from the handle of a file: give its File, or the handle of a folder')
  }
  const files = Array.from(source as ArrayLike<File | PlacedFile>, (item) =>
    item instanceof File ? { path: item.webkitRelativePath || item.name, file: item } : item,
  )
  if (files.length === 0) throw new TypeError('Cannot open a bundle from an empty list of files')
  // A directory input names the chosen folder in every path; the bundle begins below it.
  const root = files.find(({ path }) => /(^|\/)manifest\.json$/.test(path))?.path.replace(/manifest\.json$/, '') ?? ''
  return files
    .filter(({ path }) => path.startsWith(root))
    .map(({ path, file }) => ({ path: path.slice(root.length), file }))
}

/** Whether a source can be sent to a worker: all but files that only this page can read. */
export function isPortable(source: BundleSource): source is Exclude<BundleSource, Files> {
  return !isFiles(source)
}
