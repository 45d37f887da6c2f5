import { type Files, sha256 as hashOf } from '../bundle/files.ts'
import { manifestPath, signaturePath } from '../bundle/layout.ts'
import { type Manifest, parseManifest } from '../bundle/manifest.ts'
import { ZipFiles } from '../bundle/zip.ts'
import { BundleError, NetworkError } from '../core/errors.ts'
import { byteProgress, type OnProgress, silent } from '../core/progress.ts'
import { memorySource } from '../formats/byte-source.ts'
import type { BundleCache, SeenBundle } from './cache.ts'
import { type FetchOptions, fetchBytes } from './fetch-bytes.ts'

/** How a bundle is brought to the page. */
export interface FetchBundleOptions {
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
  /** Where files are kept; nothing is kept without one. */
  readonly cache?: BundleCache
}

const mostSmall = 2 ** 24
const encoder = new TextEncoder()
const decoder = new TextDecoder()

/**
 * The files of a bundle at a web address, of a folder or a .zip. Of a folder only manifest.json is fetched if the cache
 * has the rest; of a .zip nothing, if the server says that it is the one that was seen last. Where the server cannot be
 * reached, what was seen last is used.
 * @throws NetworkError or BundleError that says what to do.
 */
export async function fetchBundle(url: URL, options: FetchBundleOptions = {}): Promise<Files> {
  if (/\.zip$/i.test(url.pathname)) return fetchZip(url.href, options)
  const folder = new URL(url)
  folder.pathname = folder.pathname.replace(/\/(manifest\.json)?$/, '')
  folder.pathname += '/'
  return fetchFolder(folder, options)
}

async function fetchFolder(folder: URL, options: FetchBundleOptions): Promise<Files> {
  const { cache, signal } = options
  const at = (path: string) => {
    const file = new URL(folder)
    file.pathname += path.split('/').map(encodeURIComponent).join('/')
    return file.href
  }
  const seen = await cache?.seen(folder.href)
  const small: FetchOptions = { signal, most: mostSmall }
  try {
    const fetched = await fetchBytes(at(manifestPath), small)
    if (!fetched)
      throw new BundleError(
        `There is no bundle at ${folder.href}: it has no ${manifestPath}. Give the address of the folder that holds it, or of a .zip.`,
      )
    const manifest = decoder.decode(fetched.bytes)
    if (seen?.manifest === manifest) return new RemoteFiles(seen, at, options)
    const { bundle_id, files } = parsed(fetched.bytes, at(manifestPath))
    const signature = await fetchBytes(at(signaturePath), small)
    const now: SeenBundle = {
      url: folder.href,
      bundleId: bundle_id,
      manifest,
      signature: signature ? decoder.decode(signature.bytes) : null,
      version: null,
      files: Object.values(files),
    }
    await cache?.remember(now)
    return new RemoteFiles(now, at, options)
  } catch (error) {
    if (error instanceof NetworkError && seen) return new RemoteFiles(seen, at, options)
    throw error
  }
}

async function fetchZip(url: string, { cache, signal, onProgress = silent }: FetchBundleOptions): Promise<Files> {
  const seen = await cache?.seen(url)
  if (cache && seen && (await isCurrent(seen, signal)) && (await isWhole(cache, seen)))
    return new RemoteFiles(seen, () => url, { cache, signal, onProgress })
  let total = 0
  const fetched = await fetchBytes(url, {
    signal,
    onBytes: (done) => onProgress(byteProgress('fetch', done, Math.max(done + 1, total + 1))),
    onLength: (length) => {
      total = length
    },
  })
  if (!fetched) throw new BundleError(`There is no bundle at ${url}: the server has no such file.`)
  const files = await ZipFiles.open(memorySource(fetched.bytes))
  onProgress(byteProgress('fetch', fetched.bytes.length, fetched.bytes.length))
  if (cache) {
    const bytes = await files.read(manifestPath)
    const manifest = parseManifest(bytes)
    const signed = (await files.list()).includes(signaturePath)
    for (const [path, { sha256 }] of Object.entries(manifest.files))
      if (!(await cache.write(sha256, await files.read(path)))) break
    await cache.remember({
      url,
      bundleId: manifest.bundle_id,
      manifest: decoder.decode(bytes),
      signature: signed ? decoder.decode(await files.read(signaturePath)) : null,
      version: versionOf(fetched.response),
      files: Object.values(manifest.files),
    })
  }
  return files
}

/** Whether the server still has what was seen; true as well when it cannot be reached. */
async function isCurrent({ url, version }: SeenBundle, signal?: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(url, { method: 'HEAD', cache: 'no-cache', signal })
    return response.ok && version !== null && versionOf(response) === version
  } catch {
    signal?.throwIfAborted()
    return true
  }
}

function versionOf({ headers }: Response): string | null {
  const tag = headers.get('ETag') ?? headers.get('Last-Modified')
  return tag === null ? null : `${tag} ${headers.get('Content-Length') ?? ''}`
}

async function isWhole(cache: BundleCache, { files }: SeenBundle): Promise<boolean> {
  for (const { sha256, size } of files) if (!(await cache.has(sha256, size))) return false
  return true
}

function parsed(bytes: Uint8Array, url: string): Manifest {
  try {
    return parseManifest(bytes)
  } catch (error) {
    throw new BundleError(`What lies at ${url} is no bundle: ${(error as Error).message}`)
  }
}

/** Files whose names and sizes a manifest tells, from the cache or from the server; each is brought once. */
class RemoteFiles implements Files {
  readonly #seen: SeenBundle
  readonly #manifest: Manifest
  readonly #urlOf: (path: string) => string
  readonly #options: FetchBundleOptions
  readonly #held = new Map<string, Uint8Array<ArrayBuffer>>()
  readonly #total: number
  #done = 0

  constructor(seen: SeenBundle, urlOf: (path: string) => string, options: FetchBundleOptions) {
    this.#seen = seen
    this.#manifest = parseManifest(encoder.encode(seen.manifest))
    this.#urlOf = urlOf
    this.#options = options
    this.#total = Object.values(this.#manifest.files).reduce((sum, { size }) => sum + size, 0)
  }

  async list(): Promise<string[]> {
    const signature = this.#seen.signature === null ? [] : [signaturePath]
    return [...Object.keys(this.#manifest.files), manifestPath, ...signature].sort()
  }

  async size(path: string): Promise<number> {
    return this.#small(path)?.length ?? this.#listed(path).size
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const known = this.#small(path) ?? this.#held.get(path)
    if (known) return known
    const bytes = await this.#bring(path)
    this.#held.set(path, bytes)
    this.#done += bytes.length
    this.#report(0)
    return bytes
  }

  async #bring(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const { cache, signal } = this.#options
    signal?.throwIfAborted()
    const { sha256, size } = this.#listed(path)
    const cached = await cache?.read(sha256, size)
    if (cached) return cached
    const url = this.#urlOf(path)
    const fetched = await fetchBytes(url, { signal, size, onBytes: (done) => this.#report(done) })
    if (!fetched) throw new BundleError(`The bundle is not whole: there is no ${url}. Upload it again.`)
    if ((await hashOf(fetched.bytes)) !== sha256)
      throw new BundleError(`${path} was altered: its sha256 is not the manifest's. It was fetched from ${url}`)
    await cache?.write(sha256, fetched.bytes)
    return fetched.bytes
  }

  #report(more: number): void {
    // It is complete when the last file is checked, and not when its last byte comes.
    const done = more === 0 ? this.#done : Math.min(this.#done + more, this.#total - 1)
    this.#options.onProgress?.(byteProgress('fetch', done, this.#total))
  }

  #small(path: string): Uint8Array<ArrayBuffer> | undefined {
    const { manifest, signature } = this.#seen
    if (path === manifestPath) return encoder.encode(manifest)
    return path === signaturePath && signature !== null ? encoder.encode(signature) : undefined
  }

  #listed(path: string): Manifest['files'][string] {
    const file = this.#manifest.files[path]
    if (!file) throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    return file
  }
}
