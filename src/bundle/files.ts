import { BundleError } from '../core/errors.ts'

/** A set of files: a folder, an archive, or memory. */
export interface Files {
  /** Paths of everything that is no folder, links too, with `/` between their parts. */
  list(): Promise<string[]>
  /** Bytes of a file, without reading it. @throws SyntaxError when it is not there or not a regular file. */
  size(path: string): Promise<number>
  /** @throws SyntaxError when the file is not there or not a regular file. */
  read(path: string): Promise<Uint8Array<ArrayBuffer>>
}

/** Files that can be written too. */
export interface WritableFiles extends Files {
  /** Writes a file whole or not at all. */
  write(path: string, bytes: Uint8Array): Promise<void>
}

/** Files in memory, by path. */
export class MemoryFiles implements WritableFiles {
  readonly contents = new Map<string, Uint8Array<ArrayBuffer>>()

  async list(): Promise<string[]> {
    return [...this.contents.keys()].sort()
  }

  async size(path: string): Promise<number> {
    return (await this.read(path)).length
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = this.contents.get(path)
    if (!bytes) throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    return bytes
  }

  async write(path: string, bytes: Uint8Array): Promise<void> {
    this.contents.set(path, new Uint8Array(bytes))
  }
}

/** sha256 of bytes or of the UTF-8 of a text, in hex. */
export async function sha256(content: Uint8Array<ArrayBuffer> | string): Promise<string> {
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content
  return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
}

/** Bytes in hex, two lower-case digits each. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/**
 * Checks the names of files before anything else is believed: relative, of plain parts, and no two that some system
 * takes for one (case, Unicode forms).
 * @throws BundleError naming the first that is not.
 */
export function checkNames(paths: readonly string[]): void {
  const folded = new Map<string, string>()
  for (const path of paths) {
    const shown = JSON.stringify(path)
    const parts = path.split('/')
    if (parts.some((part) => part === '' || part === '.' || part === '..') || /^[A-Za-z]:/.test(path))
      throw new BundleError(`${shown} leads out of the bundle`)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    if (/[\u0000-\u001f\u007f\\]/.test(path) || !path.isWellFormed())
      throw new BundleError(`${shown} holds characters that no path of a bundle has`)
    if (path !== path.normalize('NFC')) throw new BundleError(`${shown} is not in Unicode's form NFC`)
    const key = path.normalize('NFKC').toLowerCase()
    const twin = folded.get(key)
    if (twin === path) throw new BundleError(`${shown} is there twice`)
    if (twin !== undefined) throw new BundleError(`${shown} and ${JSON.stringify(twin)} are one name on some systems`)
    folded.set(key, path)
  }
}
