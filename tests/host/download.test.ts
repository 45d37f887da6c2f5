import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { InterruptedError, NetworkError, ResourceError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { download } from '../../src/host/download.ts'
import { HubServer } from './hub-server.ts'

const bytes = Uint8Array.from(new Random(42).normals(100_000), (value) => Math.floor(value * 50) & 255)
const sha256 = createHash('sha256').update(bytes).digest('hex')
const work = mkdtempSync(join(tmpdir(), 'nexus-download-'))
let server: HubServer
let other: HubServer
beforeAll(async () => {
  server = await HubServer.start()
  other = await HubServer.start()
})
afterAll(async () => {
  await server.stop()
  await other.stop()
  rmSync(work, { recursive: true, force: true })
})

let count = 0
let path: string
let url: string
const fast = { pause: 1, onBytes: (done: number) => server.cut(done) }
beforeEach(() => {
  path = join(work, String(++count), 'file.bin')
  url = `${server.url}/${count}.bin`
  server.files.set(`/${count}.bin`, bytes)
  server.seen.length = 0
  other.seen.length = 0
})
const trouble = (what: object) => server.trouble.set(`/${count}.bin`, what)
const inFolder = () => readdirSync(join(work, String(count)))

test('a file comes whole, with its hash and its progress, and leaves no part', async () => {
  const seen: [number, number | undefined][] = []
  const got = await download(url, path, { sha256, bytes: bytes.length, onBytes: (...args) => seen.push(args) })
  expect(got).toEqual({ bytes: bytes.length, sha256 })
  expect(new Uint8Array(readFileSync(path))).toEqual(bytes)
  expect(seen[0]).toEqual([0, bytes.length])
  expect(seen.at(-1)).toEqual([bytes.length, bytes.length])
  expect(inFolder()).toEqual(['file.bin'])
})

test('a cut connection is taken up where it was, under the same ETag', async () => {
  trouble({ cutAfter: 30_000, cuts: 2 })
  await download(url, path, fast)
  expect(new Uint8Array(readFileSync(path))).toEqual(bytes)
  expect(server.seen.map(({ range }) => range)).toEqual([undefined, 'bytes=30000-', 'bytes=60000-'])
  expect(server.seen[1].ifRange).toBe(`"${sha256}"`)
})

test('a later call goes on from the part; a file that changed meanwhile is fetched from its beginning', async () => {
  trouble({ cutAfter: 40_000, cuts: 1, dies: true })
  await expect(download(url, path, { ...fast, attempts: 1 })).rejects.toThrow(NetworkError)
  expect(inFolder().sort()).toEqual(['file.bin.part', 'file.bin.part.json'])
  trouble({})
  const changed = bytes.map((byte) => byte ^ 1)
  server.files.set(`/${count}.bin`, changed)
  await download(url, path, fast)
  expect(server.seen.at(-1)!.range).toBe('bytes=40000-')
  expect(new Uint8Array(readFileSync(path))).toEqual(changed)
})

test('a server that answers a range although the ETag differs is not believed', async () => {
  trouble({ cutAfter: 40_000, cuts: 1, dies: true, etag: '"one"' })
  await expect(download(url, path, { ...fast, attempts: 1 })).rejects.toThrow(/answers 503. Run again/)
  writeFileSync(`${path}.part.json`, JSON.stringify({ url, etag: '"zero"' }))
  writeFileSync(`${path}.part`, new Uint8Array(40_000))
  trouble({ etag: '"one"', ignoresIfRange: true })
  await download(url, path, fast)
  expect(server.seen.map(({ range }) => range)).toEqual([undefined, 'bytes=40000-', 'bytes=40000-', undefined])
  expect(new Uint8Array(readFileSync(path))).toEqual(bytes)
})

test('a part without ETag is used only where the hash is known', async () => {
  for (const digest of [undefined, sha256]) {
    trouble({ cutAfter: 40_000, cuts: 1, etag: 'W/"weak"' })
    server.seen.length = 0
    rmSync(path, { force: true })
    await download(url, path, { ...fast, ...(digest && { sha256: digest }) })
    expect(server.seen[1].range).toBe(digest ? 'bytes=40000-' : undefined)
    expect(new Uint8Array(readFileSync(path))).toEqual(bytes)
  }
})

test('a wrong part is found out by the hash and fetched again; wrong bytes are deleted', async () => {
  trouble({ cutAfter: 40_000, cuts: 1, dies: true })
  await expect(download(url, path, { ...fast, sha256, attempts: 1 })).rejects.toThrow()
  writeFileSync(`${path}.part`, new Uint8Array(40_000))
  trouble({})
  await download(url, path, { ...fast, sha256 })
  expect(new Uint8Array(readFileSync(path))).toEqual(bytes)

  rmSync(path)
  await expect(download(url, path, { ...fast, sha256: '0'.repeat(64) })).rejects.toThrow(/sha256 is .* want 0000/)
  await expect(download(url, path, { ...fast, gitBlob: '0'.repeat(40) })).rejects.toThrow(/git hash/)
  await expect(download(url, path, { ...fast, bytes: 7 })).rejects.toThrow(/must have 7 bytes/)
  expect(inFolder()).toEqual([])
})

test('refusals are final, weakness of the server is not', async () => {
  for (const [status, reason] of [
    [404, /404: there is no such file/],
    [401, /HF_TOKEN/],
    [403, /terms/],
  ] as const) {
    trouble({ status })
    server.seen.length = 0
    await expect(download(url, path, fast)).rejects.toThrow(reason)
    expect(server.seen).toHaveLength(1)
  }
  trouble({ status: 503, times: 2 })
  await download(url, path, fast)
  expect(new Uint8Array(readFileSync(path))).toEqual(bytes)
  const dead = await HubServer.start()
  await dead.stop()
  await expect(download(`${dead.url}/x`, path, { ...fast, attempts: 2 })).rejects.toThrow(/Cannot reach/)
})

test('redirects are followed, and the token stays with its own server', async () => {
  other.files.set('/elsewhere', bytes)
  trouble({ redirect: `${other.url}/elsewhere` })
  await download(url, path, { ...fast, token: { origin: server.url, value: 'secret' } })
  expect(server.seen[0].authorization).toBe('Bearer secret')
  expect(other.seen[0].authorization).toBeUndefined()
  trouble({ redirect: 'file:///etc/passwd' })
  await expect(download(url, `${path}2`, fast)).rejects.toThrow(/not followed/)
  trouble({ redirect: url })
  await expect(download(url, `${path}2`, fast)).rejects.toThrow(/more than ten/)
})

test('a silent server counts as a cut; a signal stops and leaves the part', async () => {
  trouble({ cutAfter: 40_000 })
  const controller = new AbortController()
  const stopped = download(url, path, {
    ...fast,
    signal: controller.signal,
    onBytes: (done) => done > 0 && controller.abort(),
  })
  await expect(stopped).rejects.toThrow(InterruptedError)
  expect(existsSync(`${path}.part`)).toBe(true)
  const { createServer } = await import('node:net')
  const mute = createServer(() => {}).listen(0, '127.0.0.1')
  await new Promise((resolve) => mute.once('listening', resolve))
  const { port } = mute.address() as { port: number }
  await expect(download(`http://127.0.0.1:${port}/x`, `${path}2`, { stall: 50, attempts: 1 })).rejects.toThrow(
    /no byte/,
  )
  mute.close()
})

test('a file larger than the disk is refused before it is begun', async () => {
  const huge = 2 ** 52
  const { createServer } = await import('node:http')
  const liar = createServer((_, response) => response.writeHead(200, { 'content-length': huge }).flushHeaders())
  await new Promise<void>((resolve) => liar.listen(0, '127.0.0.1', resolve))
  const { port } = liar.address() as { port: number }
  await expect(download(`http://127.0.0.1:${port}/x`, path, { bytes: huge })).rejects.toThrow(ResourceError)
  expect(inFolder()).toEqual([])
  liar.closeAllConnections()
  liar.close()
})
