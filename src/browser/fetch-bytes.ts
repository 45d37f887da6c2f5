import { NetworkError } from '../core/errors.ts'

/** How a file is fetched. */
export interface FetchOptions {
  readonly signal?: AbortSignal
  /** Called with the bytes that are there so far, as they come. */
  readonly onBytes?: (done: number) => void
  /** Called with what the server says the file has, before its bytes come. */
  readonly onLength?: (bytes: number) => void
  /** Bytes that the file has, where that is known: fewer are asked for again, more are refused. */
  readonly size?: number
  /** Most bytes to take where the size is not known. */
  readonly most?: number
}

/** What a server gave. */
export interface Fetched {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly response: Response
}

/** Times that a connection may break before a fetch fails. */
const mostBreaks = 4

/**
 * Fetches a file in a stream. Where the connection breaks, the rest is asked for, from the byte where it broke if the
 * server can do that.
 * @returns the bytes, or nothing when the server has no such file.
 * @throws NetworkError that says what to do; the signal's reason when it is aborted.
 */
export async function fetchBytes(url: string, options: FetchOptions = {}): Promise<Fetched | undefined> {
  const { signal, onBytes, onLength, size, most = 2 ** 32 } = options
  const chunks: Uint8Array<ArrayBuffer>[] = []
  let done = 0
  for (let breaks = 0; ; breaks++) {
    const response = await ask(url, done, signal)
    if (response.status === 404 || response.status === 410) return undefined
    if (!response.ok)
      throw new NetworkError(
        `Cannot fetch ${url}: the server answered ${response.status} ${response.statusText}`.trim(),
      )
    if (response.status !== 206) {
      chunks.length = 0
      done = 0
      onLength?.(Number(response.headers.get('Content-Length') ?? 0))
    }
    let broke: unknown
    try {
      for await (const chunk of chunksOf(response)) {
        done += chunk.length
        if (done > (size ?? most))
          throw new NetworkError(`Cannot fetch ${url}: it has more than the ${size ?? most} bytes that it may have`)
        chunks.push(chunk)
        onBytes?.(done)
      }
    } catch (error) {
      if (error instanceof NetworkError) throw error
      signal?.throwIfAborted()
      broke = error
    }
    if (broke === undefined && (size === undefined || done === size)) return { bytes: joined(chunks, done), response }
    if (breaks + 1 >= mostBreaks || (broke === undefined && done === 0))
      throw new NetworkError(
        `Cannot fetch ${url}: it ended after ${done}${size === undefined ? '' : ` of ${size}`} bytes. ` +
          'Load it again; if it ends there again, the file on the server is not whole.',
      )
  }
}

async function ask(url: string, from: number, signal?: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, {
      signal,
      headers: from > 0 ? { Range: `bytes=${from}-` } : {},
      // A file that the browser kept may be that of another manifest: it asks whether it is still the same.
      cache: 'no-cache',
    })
  } catch {
    signal?.throwIfAborted()
    throw new NetworkError(
      `Cannot fetch ${url}: the server does not answer, or it does not let this page read its files. ` +
        'If it is another host than the page’s, it must send Access-Control-Allow-Origin.',
    )
  }
}

async function* chunksOf({ body }: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  if (!body) return
  // Not every browser can iterate a stream.
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield value
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

function joined(chunks: readonly Uint8Array<ArrayBuffer>[], length: number): Uint8Array<ArrayBuffer> {
  if (chunks.length === 1) return chunks[0]
  const bytes = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
