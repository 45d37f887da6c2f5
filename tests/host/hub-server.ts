import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** What the server does to the answers for one file, besides giving it. */
export interface Trouble {
  /** Gives so many bytes of an answer and waits for {@link HubServer.cut}, so many times. */
  cutAfter?: number
  cuts?: number
  /** Answers with 503 once the cuts are done. */
  dies?: boolean
  /** Answers with this status, so many times. */
  status?: number
  times?: number
  /** The ETag that it gives; that of the bytes unless told. */
  etag?: string
  /** Answers ranges of another file than If-Range names. */
  ignoresIfRange?: boolean
  /** Leads elsewhere. */
  redirect?: string
}

/** A request that the server saw. */
export interface Seen {
  readonly path: string
  readonly range?: string
  readonly ifRange?: string
  readonly authorization?: string
}

/** A hub on this machine, as far as pulling goes: file lists with LFS hashes, and files with ranges. */
export class HubServer {
  /** Files of models, by owner/name. */
  readonly models = new Map<string, Map<string, Uint8Array>>()
  /** Other files, by path. */
  readonly files = new Map<string, Uint8Array>()
  /** By path of the request. */
  readonly trouble = new Map<string, Trouble>()
  readonly seen: Seen[] = []
  commit = 'a'.repeat(40)
  /** What the lists say instead of the truth, by file. */
  readonly lies = new Map<string, object>()
  url = ''
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #open = new Map<ServerResponse, number>()

  private constructor(server: Server) {
    this.#server = server
  }

  static async start(): Promise<HubServer> {
    const server = createServer((request, response) => hub.#answer(request, response))
    const hub = new HubServer(server)
    server.on('connection', (socket) => {
      hub.#sockets.add(socket)
      socket.on('close', () => hub.#sockets.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    return hub
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(new URL(request.url!, this.url).pathname)
    const { range, 'if-range': ifRange, authorization } = request.headers
    this.seen.push({ path, range, ifRange: ifRange as string | undefined, authorization })
    const trouble = this.trouble.get(path) ?? {}
    if (trouble.dies && trouble.cuts === 0) response.writeHead(503).end()
    else if (trouble.status !== undefined && (trouble.times ?? Infinity) > 0) {
      if (trouble.times !== undefined) trouble.times--
      response.writeHead(trouble.status).end('no')
    } else if (trouble.redirect !== undefined) response.writeHead(302, { location: trouble.redirect }).end()
    else if (path.startsWith('/api/models/')) this.#list(path.slice('/api/models/'.length), response)
    else {
      const [, id, commit, file] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path) ?? []
      const bytes = id && commit === this.commit ? this.models.get(id)?.get(file) : this.files.get(path)
      if (bytes) this.#give(bytes, request, response, trouble)
      else response.writeHead(404).end('none')
    }
  }

  #list(path: string, response: ServerResponse): void {
    const [owner, name, kind] = path.split('/')
    const files = this.models.get(`${owner}/${name}`)
    if (!files) response.writeHead(404).end('{}')
    else if (kind === 'revision')
      response.end(JSON.stringify({ _id: '1', id: `${owner}/${name}`, sha: this.commit, lastModified: '2025-01-01' }))
    else
      response.end(
        JSON.stringify(
          [...files].map(([file, bytes]) => {
            const large = /\.(gguf|safetensors)$/.test(file)
            const size = bytes.length
            const oid = createHash('sha1').update(`blob ${size}\0`).update(bytes).digest('hex')
            const lfs = { oid: createHash('sha256').update(bytes).digest('hex'), size, pointerSize: 130 }
            return { type: 'file', path: file, size, oid, ...(large && { lfs }), ...this.lies.get(file) }
          }),
        ),
      )
  }

  /** Cuts the answers of which the reader has got what there was; what it has not read yet would be lost. */
  cut(read: number): void {
    for (const [response, end] of this.#open)
      if (read >= end) {
        this.#open.delete(response)
        response.destroy()
      }
  }

  #give(bytes: Uint8Array, request: IncomingMessage, response: ServerResponse, trouble: Trouble): void {
    const etag = trouble.etag ?? `"${createHash('sha256').update(bytes).digest('hex')}"`
    const { range, 'if-range': ifRange } = request.headers
    const first = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? Number.NaN)
    const same = ifRange === undefined || ifRange === etag || trouble.ignoresIfRange === true
    const partial = !Number.isNaN(first) && same
    if (partial && first >= bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
      return
    }
    const body = partial ? bytes.subarray(first) : bytes
    const place = `bytes ${first}-${bytes.length - 1}/${bytes.length}`
    response.writeHead(partial ? 206 : 200, {
      etag,
      'content-length': body.length,
      ...(partial && { 'content-range': place }),
    })
    if (trouble.cutAfter === undefined || (trouble.cuts ?? Infinity) <= 0) response.end(body)
    else {
      if (trouble.cuts !== undefined) trouble.cuts--
      this.#open.set(response, bytes.length - body.length + trouble.cutAfter)
      response.write(body.subarray(0, trouble.cutAfter))
    }
  }
}
