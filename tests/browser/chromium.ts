import { existsSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { build } from 'esbuild'
import { type Browser, chromium, type Page } from 'playwright-core'
import type { Files } from '../../src/bundle/files.ts'

/** Debian's browser. */
export const chromiumPath = '/usr/bin/chromium'

/** Whether there is a browser to test in. */
export const hasChromium = existsSync(chromiumPath)

/** Bytes that a test server answers with, by path. */
export type Site = Map<string, Uint8Array | string>

/** A server of a few files in memory, which says what it was asked for. */
export interface TestServer extends AsyncDisposable {
  readonly url: string
  readonly asked: string[]
  readonly site: Site
  /** Answers in the place of the site, where it returns true. */
  intercept: ((request: IncomingMessage, response: import('node:http').ServerResponse) => boolean) | undefined
}

const types: Readonly<Record<string, string>> = { html: 'text/html', js: 'text/javascript', json: 'application/json' }

/** Serves `site` to this machine. */
export async function serveSite(site: Site): Promise<TestServer> {
  const asked: string[] = []
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, 'http://localhost').pathname)
    asked.push(`${request.method} ${path}`)
    if (result.intercept?.(request, response)) return
    const body = site.get(path)
    if (body === undefined) {
      response.writeHead(404).end()
      return
    }
    const bytes = Buffer.from(body)
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    response.writeHead(from > 0 ? 206 : 200, {
      'Content-Type': types[path === '/' ? 'html' : path.split('.').at(-1)!] ?? 'application/octet-stream',
      'Content-Length': bytes.length - from,
      ETag: `"${bytes.length}"`,
    })
    response.end(request.method === 'HEAD' ? undefined : bytes.subarray(from))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const result: TestServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    asked,
    site,
    intercept: undefined,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return result
}

/** The library for a page and its worker, as bundlers make it: /page.js, /worker.js and a page that loads the first. */
export async function pageFiles(): Promise<Site> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'page.ts'), join(import.meta.dirname, '../../src/browser/worker.ts')],
    entryNames: '[name]',
    bundle: true,
    write: false,
    outdir: '/',
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'error',
  })
  const site: Site = new Map(outputFiles.map(({ path, text }) => [path, text]))
  return site.set('/', '<!doctype html><title>test</title><script type="module" src="/page.js"></script>')
}

/** Adds a bundle's files to a site. */
export async function addBundle(site: Site, folder: string, files: Files): Promise<void> {
  for (const path of await files.list()) site.set(`${folder}${path}`, await files.read(path))
}

/** Starts Chromium with WebGPU on SwiftShader. */
export function startChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: chromiumPath,
    args: [
      ...['--headless=new', '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan'],
      '--use-webgpu-adapter=swiftshader',
    ],
  })
}

/** A page at `url` that has the library. */
export async function openPage(browser: Browser, url: string): Promise<Page> {
  const page = await browser.newPage()
  page.on('pageerror', (error) => console.error(`the page: ${error.message}`))
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().includes('404')) console.error(`the page: ${message.text()}`)
  })
  await page.goto(url)
  await page.waitForFunction('globalThis.nexus !== undefined')
  return page
}
