import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import {
  appendFile,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  statfs,
} from 'node:fs/promises'
import { dirname, isAbsolute, join, normalize, sep } from 'node:path'
import { ResourceError } from '../core/errors.ts'

/**
 * Writes a file whole or not at all: to a temporary name in the same folder, flushed to disk, then renamed. Missing
 * folders are made.
 * @throws ResourceError when the disk is full; the old file, if any, is untouched.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  const part = `${path}.${process.pid}.part`
  try {
    await mkdir(dirname(path), { recursive: true })
    const file = await open(part, 'w')
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, path)
    const folder = await open(dirname(path))
    await folder.sync().finally(() => folder.close())
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    const code = (error as { code?: string }).code
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new ResourceError(`Cannot write ${path}: the disk is full. Free ${bytes.length} bytes and run again.`)
    throw error
  }
}

/**
 * Writes a file of many parts whole or not at all, a part in memory at a time.
 * @param work adds the parts with the function that it is given.
 */
export async function writePartsAtomic<T>(
  path: string,
  work: (add: (bytes: Uint8Array) => Promise<void>) => Promise<T>,
): Promise<T> {
  const part = `${path}.${process.pid}.part`
  await mkdir(dirname(path), { recursive: true })
  try {
    const file = await open(part, 'w')
    let result: T
    try {
      result = await work((bytes) => file.appendFile(bytes))
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, path)
    return result
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    const code = (error as { code?: string }).code
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new ResourceError(`Cannot write ${path}: the disk is full. Free some of it and run again.`)
    throw error
  }
}

/** Adds text to the end of a file. Missing folders are made. */
export async function appendText(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await appendFile(path, text)
}

/** Names of what is in a folder, without what is in its folders. */
export function listNames(path: string): Promise<string[]> {
  return readdir(path)
}

/** Writes a value as JSON that a person can read, whole or not at all. */
export function writeJson(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`)
}

/**
 * Reads a JSON file.
 * @throws SyntaxError naming the file, when it is missing or not JSON.
 */
export async function readJson(path: string): Promise<unknown> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new SyntaxError(`Cannot read ${path}: ${reasonOf(error)}`)
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new SyntaxError(`Cannot read ${path}: it is not valid JSON (${(error as Error).message})`)
  }
}

/**
 * Reads a file's bytes.
 * @throws SyntaxError naming the file, when it cannot be read.
 */
export async function readBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(path))
  } catch (error) {
    throw new SyntaxError(`Cannot read ${path}: ${reasonOf(error)}`)
  }
}

/** What the system says of a file, without the file's name, which stands before it. */
function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: string; message: string }
  return code === 'ENOENT' ? 'it is not there' : message.replace(/, \w+( '.*')?$/, '')
}

/** Whether a file or folder is there. */
export function exists(path: string): boolean {
  return existsSync(path)
}

/** Deletes a folder with all it holds; no fault when it is not there. */
export function removeFolder(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true })
}

/**
 * Checks that the disk of `folder`, which is there, has room.
 * @throws ResourceError with the numbers.
 */
export async function checkDiskSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  const size = (n: number) => (n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(2)} GB`)
  if (bytes > bavail * bsize)
    throw new ResourceError(
      `Cannot write to ${folder}: ${size(bytes)} are needed, the disk has ${size(bavail * bsize)}. Free some space and run again.`,
    )
}

/** sha256 of bytes or text, in hex. */
export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** sha256 of a file, in hex. */
export async function sha256OfFile(path: string): Promise<string> {
  await using file = await FileSource.open(path)
  return await sha256Of(file)
}

/** sha256 of what a source holds, in hex, read a megabyte at a time. */
export async function sha256Of(source: { length: number; read(offset: number, length: number): Promise<Uint8Array> }) {
  const hash = createHash('sha256')
  for (let offset = 0; offset < source.length; offset += 2 ** 20)
    hash.update(await source.read(offset, Math.min(2 ** 20, source.length - offset)))
  return hash.digest('hex')
}

/** A folder of files, as the bundle room sees one. */
export class FolderFiles {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  /** Paths of all entries that are not folders, with `/` between their parts, sorted. Links are listed, not followed. */
  async list(): Promise<string[]> {
    const entries = await readdir(this.root, { recursive: true, withFileTypes: true })
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) =>
        join(entry.parentPath, entry.name)
          .slice(this.root.length + 1)
          .split(sep)
          .join('/'),
      )
      .sort()
  }

  /** Bytes of a regular file, without reading it. @throws SyntaxError as {@link read} does. */
  async size(path: string): Promise<number> {
    const found = await lstat(this.#inside(path)).catch((error: Error) => {
      throw new SyntaxError(`Cannot read ${path}: ${reasonOf(error)}`)
    })
    if (!found.isFile()) throw new SyntaxError(`Cannot read ${path}: it is not a regular file`)
    return found.size
  }

  /** Bytes of a regular file. @throws SyntaxError for a link, a path outside the folder, or when it cannot be read. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    await this.size(path)
    return readBytes(this.#inside(path))
  }

  /** Writes a file whole or not at all. @throws SyntaxError for a path outside the folder. */
  async write(path: string, bytes: Uint8Array): Promise<void> {
    return writeFileAtomic(this.#inside(path), bytes)
  }

  #inside(path: string): string {
    const outside = isAbsolute(path) || normalize(path).split(sep).includes('..')
    if (outside) throw new SyntaxError(`Cannot open ${path}: it lies outside the folder`)
    return join(this.root, path)
  }
}

/** A file that is read in pieces. Close it when done: `await using file = await FileSource.open(path)`. */
export class FileSource implements AsyncDisposable {
  readonly path: string
  /** Bytes of the file when it was opened. */
  readonly length: number
  readonly #file: FileHandle

  private constructor(path: string, length: number, file: FileHandle) {
    this.path = path
    this.length = length
    this.#file = file
  }

  /** Opens a file. @throws SyntaxError naming the file, when it cannot be read or is none. */
  static async open(path: string): Promise<FileSource> {
    const fault = (reason: string) => new SyntaxError(`Cannot read ${path}: ${reason}`)
    const file = await open(path).catch((error: Error) => {
      throw fault(reasonOf(error))
    })
    const { size, isFile } = await file.stat().then((stat) => ({ size: stat.size, isFile: stat.isFile() }))
    if (isFile) return new FileSource(path, size, file)
    await file.close()
    throw fault('it is not a regular file')
  }

  /** `length` bytes from `offset`. @throws SyntaxError when the file ends before. */
  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.length))
      throw new SyntaxError(`Cannot read ${length} bytes at ${offset} of ${this.path}: it has ${this.length}`)
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, Math.min(length - done, 2 ** 30), offset + done)
      if (bytesRead === 0) throw new SyntaxError(`Cannot read ${this.path}: it became shorter while it was read`)
      done += bytesRead
    }
    return bytes
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/** A file that is written in pieces, in any order. Close it when done: `await using file = await FileSink.create(path)`. */
export class FileSink implements AsyncDisposable {
  readonly path: string
  readonly #file: FileHandle

  private constructor(path: string, file: FileHandle) {
    this.path = path
    this.#file = file
  }

  /** Makes a file, empty. @throws Error of the system when it cannot. */
  static async create(path: string): Promise<FileSink> {
    return new FileSink(path, await open(path, 'w'))
  }

  /** Puts bytes at `offset`. @throws ResourceError when the disk is full. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; )
        done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
    } catch (error) {
      const { code } = error as { code?: string }
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error
      throw new ResourceError(`Cannot write ${this.path}: the disk is full. Free some space and run again.`)
    }
  }

  /** Waits until the disk has it all. */
  async flush(): Promise<void> {
    await this.#file.sync()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}
