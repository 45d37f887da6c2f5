/** A set of files: a folder, or an archive in memory. */
export interface Files {
  /** Paths of all files, with `/` between their parts. */
  list(): Promise<string[]>
  /** @throws SyntaxError when the file is not there or not a regular file. */
  read(path: string): Promise<Uint8Array<ArrayBuffer>>
}

/** Files that can be written too. */
export interface WritableFiles extends Files {
  /** Writes a file whole or not at all. */
  write(path: string, bytes: Uint8Array): Promise<void>
}

/** sha256 of bytes, in hex. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** JSON with sorted keys and no spaces: equal values give equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const entries = Object.entries(value).filter(([, item]) => item !== undefined)
  entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(',')}}`
}
