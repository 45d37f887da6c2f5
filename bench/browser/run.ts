// The comparison with the peers in a headless browser:  npm run bench:browser -- --help
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { comparisonTable } from '../peers/comparison-table.ts'
import type { Esbuild } from '../peers/interfaces.ts'
import type { PageOptions, PageResult } from './page.ts'

const usage = `npm run bench:browser [-- options]
  --filter <text>      only ops whose name contains it
  --quick              a few samples an op, and none of a thousand million operations
  --peers <names>      which peers, of ort,tfjs,jax
  --json <file>        writes everything that was measured
  --chromium <path>    the browser; /usr/bin/chromium unless told
  --hardware           the machine's GPU instead of SwiftShader`

const { values: options } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    peers: { type: 'string', default: 'ort,tfjs,jax' },
    json: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    hardware: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

const peersFolder = join(import.meta.dirname, '../peers')
const modules = join(peersFolder, 'node_modules')

/** The page's script: our sources with the peers that bundle well. */
async function bundlePage(): Promise<string> {
  const { build }: Esbuild = createRequire(join(peersFolder, 'package.json'))('esbuild')
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'page.ts')],
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2022', // `using` becomes plain code
    nodePaths: [modules],
    // The Node half of opening a GPU, which a page never reaches, and TensorFlow's fallbacks for Node.
    external: ['node:*', 'webgpu', 'node-fetch', 'string_decoder', 'crypto', 'util'],
    logLevel: 'error',
  })
  return outputFiles[0].text
}

/** Serves the page, its script and onnxruntime-web's files to this machine alone. */
async function serve(script: string): Promise<Server> {
  // Isolated pages get a clock that counts in 5 µs instead of 100.
  const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' }
  const html = '<!doctype html><title>bench</title><script type="module" src="/page.js"></script>'
  const answer = async (path: string): Promise<[type: string, body: string | Uint8Array]> => {
    if (path === '/') return ['text/html', html]
    if (path === '/page.js') return ['text/javascript', script]
    const body = await readFile(join(modules, 'onnxruntime-web/dist', basename(path)))
    return [path.endsWith('.wasm') ? 'application/wasm' : 'text/javascript', body]
  }
  const server = createServer((request, response) => {
    answer(new URL(request.url!, 'http://localhost').pathname).then(
      ([type, body]) => response.writeHead(200, { ...isolation, 'Content-Type': type }).end(body),
      () => response.writeHead(404).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

const software = ['--use-webgpu-adapter=swiftshader']
const flags = ['--headless=new', '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan']

/** @returns the exit code. */
async function main(): Promise<number> {
  if (options.help) {
    console.log(usage)
    return 0
  }
  if (!existsSync(options.chromium)) {
    console.error(`There is no browser at ${options.chromium}. Run: apt-get install -y chromium`)
    return 1
  }
  if (!existsSync(modules)) {
    console.error('The peers are not installed. Run: npm ci --prefix bench/peers')
    return 1
  }
  const lock = JSON.parse(await readFile(join(peersFolder, 'package-lock.json'), 'utf8'))
  const settings: PageOptions = {
    quick: options.quick,
    filter: options.filter,
    peers: options.peers.split(',').filter(Boolean),
    jaxVersion: lock.packages['node_modules/@jax-js/jax'].version,
  }
  const server = await serve(await bundlePage())
  const args = options.hardware ? flags : [...flags, ...software]
  const browser = await chromium.launch({ executablePath: options.chromium, args })
  try {
    const page = await browser.newPage()
    page.on('pageerror', (error) => console.error(`the page: ${error.message}`))
    page.on('crash', () => console.error('The page crashed'))
    await page.exposeFunction('say', (line: string) => console.error(line))
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
    const run = `runBench(${JSON.stringify(settings)})`
    const measured = await page.evaluate<PageResult>(run)
    console.log(comparisonTable(measured.comparisons, settings.peers))
    if (options.json) {
      const file = {
        format: 'nexus-bench-2',
        host: `Chromium ${browser.version()}`,
        date: new Date().toISOString(),
        toggles: { enabled: [], disabled: [] },
        quick: options.quick,
        ...measured,
        ceilings: { ...measured.ceilings, matrixUnits: [] },
        ...{ results: [], wrong: [] },
      }
      await writeFile(options.json, `${JSON.stringify(file, null, 2)}\n`)
      console.error(`Written to ${options.json}`)
    }
    return measured.comparisons.some(({ ours }) => ours === null) ? 1 : 0
  } finally {
    await browser.close()
    server.close()
  }
}

process.exit(
  await main().catch((error: Error) => {
    console.error(error.message)
    return 1
  }),
)
