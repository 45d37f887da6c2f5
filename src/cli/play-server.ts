import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'
import { checkNames, type Files } from '../bundle/files.ts'
import { UsageError } from '../core/errors.ts'

/** What a {@link servePlayground} serves. */
export interface PlayServerOptions {
  /** Folder of the built page. */
  readonly page: string
  /** The bundle, below `bundle/`; none unless given. */
  readonly bundle?: Files
  /** What the page calls the bundle. */
  readonly name?: string
  /** Address to listen at; this machine alone unless told. */
  readonly host?: string
  /** Any free one unless told. */
  readonly port?: number
}

/** A server that runs. */
export interface PlayServer {
  /** Where the page is, with the bundle that it opens. */
  readonly url: string
  close(): Promise<void>
}

/** The files of the built page. */
const pageFiles = ['index.html', 'src/page.js', 'src/worker.js']

const types: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.md': 'text/markdown; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
  '.yaml': 'text/yaml; charset=utf-8',
}

/** Isolated, so that clocks are fine; and bound to this server, workers too, which a page's own policy does not bind. */
const headers = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; img-src 'self' data:; " +
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-cache',
}

/**
 * Serves the playground, and a bundle beside it, over http. Only names that were listed when it began are served: no path
 * leads anywhere else.
 * @throws UsageError when the port is taken.
 */
export async function servePlayground(options: PlayServerOptions): Promise<PlayServer> {
  const { page, bundle, name: title, host = '127.0.0.1', port = 0 } = options
  const listed = bundle ? await bundle.list() : []
  checkNames(listed)
  const readers = new Map<string, () => Promise<Uint8Array>>()
  for (const name of pageFiles) readers.set(`/${name}`, () => readFile(join(page, name)))
  readers.set('/', readers.get('/index.html')!)
  for (const path of listed) readers.set(`/bundle/${path}`, () => bundle!.read(path))
  const server = createServer(
    (request, response) => void answer(readers, allowedHosts(server, host), request, response),
  )
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'EADDRINUSE' ? new UsageError(`Port ${port} is taken: give another --port`) : error),
    )
    server.listen(port, host, resolve)
  })
  const query = bundle ? `?${new URLSearchParams({ bundle: 'bundle/', ...(title && { name: title }) })}` : ''
  const shown = host.includes(':') ? `[${host}]` : host
  return {
    url: `http://${shown}:${(server.address() as AddressInfo).port}/${query}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Names by which this server may be called: a page elsewhere that points its own name here is not answered. */
function allowedHosts(server: Server, host: string): readonly string[] | undefined {
  if (!['127.0.0.1', 'localhost', '::1'].includes(host)) return undefined
  const { port } = server.address() as AddressInfo
  return ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`)
}

async function answer(
  readers: ReadonlyMap<string, () => Promise<Uint8Array>>,
  hosts: readonly string[] | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const end = (status: number, body: string | Uint8Array, type = 'text/plain; charset=utf-8') => {
    response.writeHead(status, { ...headers, 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) })
    response.end(request.method === 'HEAD' ? undefined : body)
  }
  if (hosts && !hosts.includes(request.headers.host ?? '')) return end(403, 'This server answers to localhost only.\n')
  if (request.method !== 'GET' && request.method !== 'HEAD') return end(405, 'Only GET and HEAD.\n')
  const path = pathOf(request.url ?? '')
  const read = path === undefined ? undefined : readers.get(path)
  if (path === undefined || !read) return end(404, 'There is no such file.\n')
  try {
    end(200, await read(), types[extname(path === '/' ? '/index.html' : path)] ?? 'application/octet-stream')
  } catch {
    end(500, 'The file cannot be read.\n')
  }
}

/** The path of a request, decoded once; nothing when it is not a plain one. */
function pathOf(url: string): string | undefined {
  try {
    const path = decodeURIComponent(url.replace(/[?#].*$/s, ''))
    return /(^|\/)\.\.?(\/|$)|[\\\0]/.test(path) ? undefined : path
  } catch {
    return undefined
  }
}
