import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { InterruptedError, messageOf, NetworkError, ResourceError } from '../core/errors.ts'
import { checkDiskSpace } from './files.ts'

/** What a file must be, where that is known before it is fetched. */
export interface Digest {
  readonly sha256?: string
  /** sha1 of git's blob of these bytes, which a hub gives for small files. */
  readonly gitBlob?: string
}

/** A secret for one server. */
export interface Token {
  /** The only origin that it is sent to. */
  readonly origin: string
  readonly value: string
}

/** A file to fetch. */
export interface DownloadOptions extends Digest {
  /** Its length, where it is known. */
  readonly bytes?: number
  readonly token?: Token
  /** Told how much of the file is there. */
  readonly onBytes?: (done: number, total: number | undefined) => void
  readonly signal?: AbortSignal
  /** Connections in a row that may bring nothing new before it gives up; 5 unless told. */
  readonly attempts?: number
  /** Milliseconds before the first time, doubled each time; 500 unless told. */
  readonly pause?: number
  /** Milliseconds without a byte that count as a cut; 60,000 unless told. */
  readonly stall?: number
}

/** A fetched file. */
export interface Downloaded {
  readonly bytes: number
  readonly sha256: string
}

/** What is known about a half-fetched file, in `<path>.part.json` beside `<path>.part`. */
interface PartState {
  readonly url: string
  readonly etag?: string
}

/** The connection ended before the file did; worth another try. */
class CutError extends NetworkError {}

/**
 * Fetches a file to `path`: into `<path>.part`, which a later call goes on with if the server still has the same file
 * (ETag and If-Range, or a digest), then checked and renamed. A file that is not what it must be is deleted.
 * @throws NetworkError when the server refuses, cannot be reached, or gives something else; ResourceError when the disk
 *   is too small, which leaves nothing; InterruptedError on the signal, which leaves the part.
 */
export async function download(url: string, path: string, options: DownloadOptions = {}): Promise<Downloaded> {
  const { attempts = 5, pause = 500, signal } = options
  await mkdir(dirname(path), { recursive: true })
  for (let attempt = 0, furthest = 0, restarted = false; ; ) {
    try {
      const resumed = await fetchRest(url, path, options)
      const found = await digestsOf(`${path}.part`)
      const wrong = mismatch(found, options)
      if (wrong === undefined) {
        await rename(`${path}.part`, path)
        await rm(`${path}.part.json`, { force: true })
        return { bytes: found.bytes, sha256: found.sha256 }
      }
      await forget(path)
      // The old part may have been to blame.
      if (!resumed || restarted) throw new NetworkError(`Cannot fetch ${url}: ${wrong}; what came was deleted`)
      restarted = true
    } catch (error) {
      if (signal?.aborted) throw new InterruptedError(`Stopped fetching ${url}; the next run goes on from there.`)
      if (isFull(error)) {
        await forget(path)
        throw new ResourceError(`Cannot fetch ${url}: the disk is full. Free some space and run again.`)
      }
      if (!(error instanceof CutError)) throw error
      const size = await sizeOf(`${path}.part`)
      if (size > furthest) attempt = 0
      furthest = Math.max(furthest, size)
      if (++attempt > attempts) throw new NetworkError(`${error.message}. Run again: it goes on from there.`)
      await setTimeout(pause * 2 ** (attempt - 1), undefined, signal && { signal }).catch(() => {})
    }
  }
}

const isFull = (error: unknown) => ['ENOSPC', 'EDQUOT'].includes((error as { code?: string } | null)?.code ?? '')

const sizeOf = (path: string) =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  )

async function forget(path: string): Promise<void> {
  for (const name of [`${path}.part`, `${path}.part.json`]) await rm(name, { force: true })
}

/** Fetches what `<path>.part` lacks. @returns whether it began with bytes of an earlier request. */
async function fetchRest(url: string, path: string, options: DownloadOptions): Promise<boolean> {
  const part = `${path}.part`
  const state = await readState(`${part}.json`)
  const known = options.sha256 !== undefined || options.gitBlob !== undefined
  const usable = state?.url === url && (known || state.etag !== undefined)
  let have = usable ? await sizeOf(part) : 0
  if (options.bytes !== undefined && have > options.bytes) have = 0
  if (have > 0 && have === options.bytes) return true

  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (have > 0) {
    headers.range = `bytes=${have}-`
    if (state?.etag) headers['if-range'] = state.etag
  }
  using watch = stallWatch(options.stall ?? 60_000, options.signal)
  const response = await request(url, headers, options.token, watch.signal)
  if (response.status === 416) {
    await response.body?.cancel()
    await forget(path)
    throw new CutError(`Cannot fetch ${url}: the server has another length`)
  }
  if (!response.ok) {
    await response.body?.cancel()
    throw refusal(url, response.status)
  }
  const etag = strongTag(response.headers.get('etag'))
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '')
  if (response.status === 206 && (Number(range?.[1] ?? -1) !== have || (state?.etag && etag !== state.etag))) {
    await response.body?.cancel()
    await forget(path)
    throw new CutError(`Cannot fetch ${url}: the server’s file changed`)
  }
  if (response.status !== 206) have = 0
  const length = response.headers.get('content-length')
  const said = length === null ? undefined : have + Number(length)
  const total = options.bytes ?? said
  if (said !== undefined && total !== undefined && said !== total) {
    await response.body?.cancel()
    throw new NetworkError(`Cannot fetch ${url}: it must have ${total} bytes, the server offers ${said}`)
  }
  await checkDiskSpace(dirname(path), (total ?? 0) - have).catch(async (error: unknown) => {
    await response.body?.cancel()
    await forget(path)
    throw error
  })
  await writeFile(`${part}.json`, JSON.stringify({ url, ...(etag && { etag }) } satisfies PartState))
  await append(url, part, have, total, response, watch.touch, options.onBytes)
  return have > 0
}

async function append(
  url: string,
  part: string,
  from: number,
  total: number | undefined,
  response: Response,
  touch: () => void,
  onBytes: DownloadOptions['onBytes'],
): Promise<void> {
  const file = await open(part, from > 0 ? 'r+' : 'w')
  let at = from
  try {
    onBytes?.(at, total)
    const chunks = (response.body ?? new ReadableStream<Uint8Array>()).getReader()
    for (;;) {
      const { done, value } = await chunks.read().catch((error: unknown) => {
        throw new CutError(`Cannot fetch ${url}: the connection was cut after ${at} bytes (${causeOf(error)})`)
      })
      if (done) break
      touch()
      if (total !== undefined && at + value.length > total) {
        await chunks.cancel()
        throw new NetworkError(`Cannot fetch ${url}: more than its ${total} bytes came`)
      }
      for (let written = 0; written < value.length; )
        written += (await file.write(value, written, value.length - written, at + written)).bytesWritten
      at += value.length
      onBytes?.(at, total)
    }
    if (total !== undefined && at < total)
      throw new CutError(`Cannot fetch ${url}: the connection was cut after ${at} of ${total} bytes`)
    await file.truncate(at)
    await file.sync()
  } finally {
    await file.close()
  }
}

/**
 * A request that follows redirects by itself, so that a token reaches its own server only.
 * @throws NetworkError when no server answers or the redirects are at fault.
 */
export async function request(
  url: string,
  headers: Readonly<Record<string, string>>,
  token?: Token,
  signal?: AbortSignal,
): Promise<Response> {
  let at = new URL(url)
  for (let hop = 0; hop < 10; hop++) {
    const own = token !== undefined && at.origin === token.origin
    const sent = own ? { ...headers, authorization: `Bearer ${token.value}` } : headers
    let response: Response
    try {
      response = await fetch(at, { headers: sent, redirect: 'manual', signal })
    } catch (error) {
      throw new CutError(`Cannot reach ${at.origin}: ${causeOf(error)}`)
    }
    const location = response.headers.get('location')
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) return response
    await response.body?.cancel()
    const next = URL.canParse(location, at) ? new URL(location, at) : undefined
    const allowed = at.protocol === 'https:' ? ['https:'] : ['http:', 'https:']
    if (!next || !allowed.includes(next.protocol))
      throw new NetworkError(`Cannot fetch ${url}: it redirects to ${JSON.stringify(location)}, which is not followed`)
    at = next
  }
  throw new NetworkError(`Cannot fetch ${url}: it redirects more than ten times`)
}

/** The error for a status that is no success. */
export function refusal(url: string, status: number): NetworkError {
  if (status >= 500 || status === 408 || status === 429)
    return new CutError(`Cannot fetch ${url}: the server answers ${status}`)
  const why: Readonly<Record<number, string>> = {
    401: 'it wants a token that may read this; set HF_TOKEN',
    403: 'it does not let you; accept the model’s terms on its page, and set HF_TOKEN',
    404: 'there is no such file, or it is private',
  }
  return new NetworkError(`Cannot fetch ${url}: the server answers ${status}${why[status] ? `: ${why[status]}` : ''}`)
}

function causeOf(error: unknown): string {
  const { cause } = error as { cause?: unknown }
  const code = (cause as { code?: unknown } | undefined)?.code
  return [messageOf(cause ?? error), code].filter((part, i, all) => part && all.indexOf(part) === i).join(', ')
}

/** An ETag that promises equal bytes; weak ones do not. */
const strongTag = (etag: string | null) => (etag && /^"[^"]*"$/.test(etag) ? etag : undefined)

async function readState(path: string): Promise<PartState | undefined> {
  try {
    const { url, etag } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
    if (typeof url !== 'string') return undefined
    return typeof etag === 'string' ? { url, etag } : { url }
  } catch {
    // Without it, or with a broken one, the file is fetched from its beginning.
    return undefined
  }
}

async function digestsOf(path: string): Promise<Downloaded & { gitBlob: string }> {
  const { size } = await stat(path)
  const sha256 = createHash('sha256')
  const git = createHash('sha1').update(`blob ${size}\0`)
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    sha256.update(chunk as Buffer)
    git.update(chunk as Buffer)
  }
  return { bytes: size, sha256: sha256.digest('hex'), gitBlob: git.digest('hex') }
}

function mismatch(found: Downloaded & { gitBlob: string }, wanted: DownloadOptions): string | undefined {
  if (wanted.bytes !== undefined && found.bytes !== wanted.bytes)
    return `it has ${found.bytes} bytes, want ${wanted.bytes}`
  if (wanted.sha256 !== undefined && found.sha256 !== wanted.sha256)
    return `its sha256 is ${found.sha256}, want ${wanted.sha256}`
  if (wanted.gitBlob !== undefined && found.gitBlob !== wanted.gitBlob)
    return `its git hash is ${found.gitBlob}, want ${wanted.gitBlob}`
  return undefined
}

/** A signal that fires when `touch` was not called for `ms`, or when `outer` does. */
function stallWatch(ms: number, outer?: AbortSignal): Disposable & { signal: AbortSignal; touch: () => void } {
  const controller = new AbortController()
  const stop = () => controller.abort(outer?.reason)
  const arm = () => globalThis.setTimeout(() => controller.abort(new Error(`no byte came for ${ms / 1000} s`)), ms)
  let timer = arm()
  if (outer?.aborted) stop()
  outer?.addEventListener('abort', stop)
  return {
    signal: controller.signal,
    touch: () => {
      clearTimeout(timer)
      timer = arm()
    },
    [Symbol.dispose]() {
      clearTimeout(timer)
      outer?.removeEventListener('abort', stop)
    },
  }
}
