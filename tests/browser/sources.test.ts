import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BundleCache } from '../../src/browser/cache.ts'
import { fetchBytes } from '../../src/browser/fetch-bytes.ts'
import { portable } from '../../src/browser/local-files.ts'
import { cureFor } from '../../src/browser/open-gpu.ts'
import { fetchBundle } from '../../src/browser/remote-files.ts'
import { MemoryFiles, sha256 } from '../../src/bundle/files.ts'
import { manifestPath } from '../../src/bundle/layout.ts'
import { assertVerified } from '../../src/bundle/verify.ts'
import { writeZip } from '../../src/bundle/zip.ts'
import type { Progress } from '../../src/core/progress.ts'
import { text, tinyBundle } from '../bundle/tiny-bundle.ts'
import { addBundle, serveSite, type TestServer } from './chromium.ts'
import { MemoryFolder } from './memory-folder.ts'

let server: TestServer
const url = (path: string) => new URL(path, server.url)
beforeEach(async () => {
  server = await serveSite(new Map())
})
afterEach(() => server[Symbol.asyncDispose]())

const body = new Uint8Array(100_000).map((_, i) => i % 251)

/** A server that sends only some bytes of what it promises, and then hangs up. */
function breakAfter(bytes: number, times: number): void {
  server.intercept = (request, response) => {
    if (times-- <= 0) return false
    const from = Number(/(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
    response.writeHead(from > 0 ? 206 : 200, { 'Content-Length': body.length - from })
    response.write(body.subarray(from, from + bytes), () => setTimeout(() => response.destroy(), 20))
    return true
  }
}

describe('fetching', () => {
  test('a broken connection goes on where it stopped, a few times', async () => {
    server.site.set('/file', body)
    breakAfter(30_000, 2)
    const seen: number[] = []
    const fetched = await fetchBytes(url('/file').href, { size: body.length, onBytes: (done) => seen.push(done) })
    expect(fetched?.bytes).toEqual(body)
    expect(server.asked).toHaveLength(3)
    expect(seen.at(-1)).toBe(body.length)
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
    breakAfter(10_000, 9)
    await expect(fetchBytes(url('/file').href, { size: body.length })).rejects.toThrow(
      'it ended after 40000 of 100000 bytes',
    )
  })

  test('faults say what to do, and a signal stops it', async () => {
    expect(await fetchBytes(url('/none').href)).toBeUndefined()
    server.site.set('/file', body)
    await expect(fetchBytes(url('/file').href, { size: 50 })).rejects.toThrow('more than the 50 bytes')
    await expect(fetchBytes(url('/file').href, { size: 200_000 })).rejects.toThrow(
      'the file on the server is not whole',
    )
    await expect(fetchBytes('http://127.0.0.1:9/x')).rejects.toThrow('Access-Control-Allow-Origin')
    server.intercept = (_, response) => {
      response.writeHead(503, 'Busy').end()
      return true
    }
    await expect(fetchBytes(url('/file').href)).rejects.toThrow('the server answered 503 Busy')
    server.intercept = () => true
    const signal = AbortSignal.timeout(50)
    await expect(fetchBytes(url('/file').href, { signal })).rejects.toThrow(
      expect.objectContaining({ name: 'TimeoutError' }),
    )
  })
})

describe('a bundle on the web', () => {
  test('verifies, tells how far it is, and comes from the cache the next time, or without the server', async () => {
    await addBundle(server.site, '/b/', await tinyBundle())
    const cache = new BundleCache(new MemoryFolder().handle)
    const reports: Progress[] = []
    const files = await fetchBundle(url('/b'), { cache, onProgress: (report) => reports.push(report) })
    await assertVerified(files)
    expect(reports.at(-1)).toMatchObject({ task: 'fetch', unit: 'MB', done: reports[0].total })
    expect(reports.filter(({ done, total }) => done === total)).toHaveLength(1)
    server.asked.length = 0
    const again = await fetchBundle(url('/b/manifest.json'), { cache })
    await assertVerified(again)
    expect(server.asked).toEqual(['GET /b/manifest.json'])
    const offline = { ...server, url: server.url }
    await server[Symbol.asyncDispose]()
    await assertVerified(await fetchBundle(new URL('/b/', offline.url), { cache }))
    await expect(fetchBundle(new URL('/c/', offline.url), { cache })).rejects.toThrow('the server does not answer')
  })

  test('a file that is broken in the cache is fetched again; one that is altered on the server is refused', async () => {
    const source = await tinyBundle()
    await addBundle(server.site, '/b/', source)
    const folder = new MemoryFolder()
    const cache = new BundleCache(folder.handle)
    await assertVerified(await fetchBundle(url('/b/'), { cache }))
    const licence = await sha256(source.contents.get('LICENSE')!)
    folder.files.set(licence, text('MIX\n'))
    server.asked.length = 0
    await assertVerified(await fetchBundle(url('/b/'), { cache }))
    expect(server.asked).toEqual(['GET /b/manifest.json', 'GET /b/LICENSE'])
    server.site.set('/b/LICENSE', text('MIX\n'))
    await assertVerified(await fetchBundle(url('/b/'), { cache }))
    await expect(assertVerified(await fetchBundle(url('/b/')))).rejects.toThrow('LICENSE was altered')
    server.site.delete('/b/LICENSE')
    await expect(assertVerified(await fetchBundle(url('/b/')))).rejects.toThrow('The bundle is not whole')
    server.site.set('/page/manifest.json', '<!doctype html>')
    await expect(fetchBundle(url('/page/'))).rejects.toThrow('is no bundle: manifest.json is not valid JSON')
  })

  test('a .zip is fetched once and asked about after that; a new one replaces it', async () => {
    const cache = new BundleCache(new MemoryFolder().handle)
    server.site.set('/b.zip', await writeZip(await tinyBundle()))
    for (const asked of ['GET', 'HEAD', 'HEAD']) {
      server.asked.length = 0
      await assertVerified(await fetchBundle(url('/b.zip'), { cache }))
      expect(server.asked).toEqual([`${asked} /b.zip`])
    }
    server.site.set('/b.zip', await writeZip(await tinyBundle({ names: ['add'] })))
    server.asked.length = 0
    const { manifest } = await assertVerified(await fetchBundle(url('/b.zip'), { cache }))
    expect(Object.keys(manifest!.capabilities)).toEqual(['add'])
    expect(server.asked).toEqual(['HEAD /b.zip', 'GET /b.zip'])
    server.site.set('/b.zip', body)
    await expect(fetchBundle(url('/b.zip'), { cache })).rejects.toThrow('The .zip is refused')
  })

  test('a cache without room is no cache: the bundle loads all the same', async () => {
    await addBundle(server.site, '/b/', await tinyBundle())
    const folder = new MemoryFolder(300)
    const cache = new BundleCache(folder.handle)
    await assertVerified(await fetchBundle(url('/b/'), { cache }))
    expect([...folder.files.keys()].filter((name) => name.endsWith('.part'))).toEqual([])
    expect((await cache.list()).every(({ whole }) => !whole)).toBe(true)
  })

  test('two bundles share files in the cache, and removing one keeps those of the other', async () => {
    const cache = new BundleCache(new MemoryFolder().handle)
    await addBundle(server.site, '/one/', await tinyBundle({ names: ['add'] }))
    await addBundle(server.site, '/two/', await tinyBundle())
    for (const name of ['/one/', '/two/']) await assertVerified(await fetchBundle(url(name), { cache }))
    const both = await cache.size()
    await cache.remove(url('/one/').href)
    expect((await cache.list()).map(({ url: place, whole }) => [new URL(place).pathname, whole])).toEqual([
      ['/two/', true],
    ])
    expect(await cache.size()).toBeLessThan(both)
    await cache.remove()
    expect(await cache.size()).toBe(0)
  })
})

test('the files of a directory input lose the folder that was chosen', () => {
  const file = (path: string) => {
    const made = new File(['x'], path.split('/').at(-1)!)
    Object.defineProperty(made, 'webkitRelativePath', { value: path })
    return made
  }
  const placed = portable([file('my/b/manifest.json'), file('my/b/adapters/a.safetensors'), file('my/other.txt')])
  expect((placed as { path: string }[]).map(({ path }) => path)).toEqual([manifestPath, 'adapters/a.safetensors'])
  expect(() => portable([])).toThrow('an empty list of files')
  expect(() => portable(new MemoryFiles() as never)).toThrow()
})

test('every browser is told its own cure', () => {
  const agents = {
    firefox: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
    firefoxWindows: 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0',
    safari: 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.0 Safari/605.1.15',
    iphone: 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 CriOS/120.0 Safari/604.1',
    chromeLinux: 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36',
    chrome: 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/112.0.0.0 Safari/537.36',
    android: 'Mozilla/5.0 (Linux; Android 13; Pixel) AppleWebKit/537.36 Chrome/112.0.0.0 Mobile Safari/537.36',
  }
  const cures = Object.values(agents).map((agent) => cureFor(agent))
  expect(new Set(cures).size).toBe(cures.length)
  expect(cureFor(agents.chrome, true)).toContain('hardware acceleration')
  expect(cureFor(agents.safari)).toContain('Safari 26')
})
