import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { buildPages } from '../../scripts/build-page.ts'
import { MemoryFiles } from '../../src/bundle/files.ts'
import { verifyBundle } from '../../src/bundle/verify.ts'
import { writeZip } from '../../src/bundle/zip.ts'
import { type PlayServer, servePlayground } from '../../src/cli/play-server.ts'
import { readPeftZip } from '../../src/formats/peft-zip.ts'
import { FolderFiles } from '../../src/host/files.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { tinyBundle } from '../bundle/tiny-bundle.ts'
import { gpu } from '../gpu.ts'
import { addBundle, chromiumPath, hasChromium, serveSite, startChromium, type TestServer } from './chromium.ts'

// The pages as a person uses them: by labels, roles and keys. NEXUS_BUNDLE=<folder> takes a bundle of the demo in the place
// of a tiny one: NEXUS_BUNDLE=.nexus/demo/nexus_bundle_v1 npx vitest run tests/browser/playground.test.ts

// Compiling kernels takes most of it; a machine that does other things too takes several times as long.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 120_000 })

let folder: string
let bundle: MemoryFiles
let browser: Browser
let playground: PlayServer
let site: TestServer
/** The playground with a bundle, its kernels compiled: shared, for compiling takes long on a GPU in software. */
let shared: Page
const faults: string[] = []
/** For what a busy machine does slowly. */
const patient = { timeout: 60_000 }

beforeAll(async () => {
  if (!hasChromium) throw new Error(`There is no browser at ${chromiumPath}. Run: apt-get install -y chromium`)
  folder = await mkdtemp(join(tmpdir(), 'nexus-page-'))
  await buildPages(folder)
  const built = new FolderFiles(join(folder, 'page'))
  const extra: Record<string, Uint8Array<ArrayBuffer>> = {}
  for (const path of await built.list()) extra[path] = await built.read(path)
  const given = process.env.NEXUS_BUNDLE
  bundle = given ? await inMemory(new FolderFiles(given)) : await tinyBundle({ extra })
  playground = await servePlayground({ page: join(folder, 'playground'), bundle: given ? bundle : await tinyBundle() })
  site = await serveSite(new Map())
  await addBundle(site.site, '/nexus_bundle_v1/', bundle)
  browser = await startChromium()
  shared = await openPage(playground.url)
})

afterAll(async () => {
  await browser?.close()
  await playground?.close()
  await site?.[Symbol.asyncDispose]()
  if (folder) await rm(folder, { recursive: true, force: true })
})

async function inMemory(files: FolderFiles): Promise<MemoryFiles> {
  const copy = new MemoryFiles()
  for (const path of await files.list()) await copy.write(path, await files.read(path))
  return copy
}

async function openPage(url: string, options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> {
  const page = await browser.newPage({ ...options, acceptDownloads: true })
  page.setDefaultTimeout(60_000)
  page.on('pageerror', (error) => faults.push(error.message))
  page.on('console', (message) => {
    // What the page's own policy refuses is said there.
    if (message.type() === 'error' && !/404|favicon/.test(message.text())) faults.push(message.text())
  })
  page.on('request', (request) => {
    if (!/^(http:\/\/127\.0\.0\.1:|data:|blob:)/.test(request.url())) faults.push(`asked for ${request.url()}`)
  })
  // The page's worker, within the test's reach.
  await page.addInitScript(() => {
    const Plain = globalThis.Worker
    globalThis.Worker = class extends Plain {
      constructor(...made: ConstructorParameters<typeof Plain>) {
        super(...made)
        Object.assign(globalThis, { lastWorker: this })
      }
    }
  })
  await page.goto(url)
  return page
}

/** Sends a prompt with the keyboard and waits for the answer. */
async function ask(page: Page, prompt: string, adapter = ''): Promise<{ text: string; meta: string }> {
  await page.getByRole('tab', { name: 'Chat' }).click()
  await page.getByLabel('Adapter', { exact: true }).selectOption(adapter)
  const input = page.getByLabel('Write a prompt', { exact: true })
  await input.fill(prompt)
  await input.press('Enter')
  await page.getByRole('log').and(page.locator('[aria-busy=false]')).waitFor()
  const last = page.getByRole('log').locator('.answer').last()
  return {
    text: (await last.locator('.answer-text').textContent())!,
    meta: (await last.locator('.meta').textContent())!,
  }
}

/** What an automatic check of accessibility finds on the page as it is. */
async function accessibilityFaults(page: Page): Promise<string[]> {
  const source = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
  await page.evaluate(source)
  const run = `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
    violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html.slice(0, 120)).join(' | ')))`
  return page.evaluate<string[]>(run)
}

test("the bundle's own page chats with any static server, gives the tokens of Node, and holds nothing that trains", async () => {
  expect((await verifyBundle(bundle)).checks.filter(({ ok }) => !ok)).toEqual([])
  using model = await NexusModel.load(bundle, { gpu })
  const page = await openPage(`${site.url}nexus_bundle_v1/index.html`)
  await page.getByLabel('Most tokens').fill('16')
  for (const [prompt, capability] of [
    ['abc', 'add'],
    ['x = 5 +', 'code'],
    ['Hello', undefined],
  ] as const) {
    const want = await model.generate({ prompt, capability, maxTokens: 16 })
    const { text, meta } = await ask(page, prompt, capability)
    expect(text).toBe(want.text)
    expect(meta).toContain(want.capability)
    expect(meta).toContain(capability ? 'chosen by you' : 'chosen by the router')
    expect(meta).toMatch(new RegExp(`\\D${want.tokens} token`))
    expect(meta).toContain('tokens/s')
  }
  expect(await page.getByRole('tab').allTextContents()).toEqual(['Chat', 'Compare'])
  await page.getByRole('button', { name: 'Verified' }).click()
  await expect.poll(() => page.getByRole('dialog').textContent(), patient).toContain('It is not signed')
  await page.close()
})

test('works by keyboard alone: tabs by arrows, an example by Enter, the answer stopped or waited for', async () => {
  const page = shared
  await page.getByRole('tab', { name: 'Chat' }).waitFor()
  await page.keyboard.press('Tab')
  expect(await page.evaluate('document.activeElement.textContent')).not.toBe('')
  await page.getByRole('tab', { name: 'Chat' }).focus()
  await page.keyboard.press('ArrowLeft')
  expect(await page.getByRole('tab', { name: 'Train' }).getAttribute('aria-selected')).toBe('true')
  await page.keyboard.press('Home')
  for (let i = 0; i < 3; i++) await page.keyboard.press('Tab')
  expect(await page.evaluate('document.activeElement.className')).toBe('example')
  await page.keyboard.press('Enter')
  await expect.poll(() => page.locator('.meta').last().textContent(), patient).toContain('chosen by you')
})

test('the playground compares, trains to a lower loss, exports, loads again and answers the same', async () => {
  const page = shared
  await page.getByRole('tab', { name: 'Compare' }).click()
  const prompt = page.getByLabel('Write a prompt for both')
  await prompt.fill('abc')
  await prompt.press('Enter')
  await expect
    .poll(() => page.locator('.versus .meta').allTextContents(), patient)
    .toEqual([expect.stringMatching(/^add/), expect.stringMatching(/^code/)])
  const [first, second] = await page.locator('.versus .answer-text').allTextContents()
  expect(first).not.toBe(second)

  await page.getByRole('tab', { name: 'Train' }).click()
  await page.getByLabel('Text').fill('the cat sat on the mat. '.repeat(6))
  await page.getByLabel('Name').fill('cat')
  await page.getByLabel('Steps').fill('20')
  await page.getByLabel('Learning rate').fill('0.01')
  await page.getByRole('button', { name: 'Train', exact: true }).click()
  await page.getByText('has learned the text').waitFor({ timeout: 120_000 })
  const told = await page.getByRole('img', { name: /Loss by step/ }).getAttribute('aria-label')
  const [, from, to] = /from ([\d.]+) to ([\d.]+) after 20 of 20/.exec(told!)!
  expect(Number(to)).toBeLessThan(Number(from) - 1)

  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Download cat' }).click(),
  ])
  expect(download.suggestedFilename()).toBe('cat.zip')
  const zip = await readFile(await download.path())
  expect(readPeftZip(zip).settings).toMatchObject({ peft_type: 'LORA', r: 8 })
  const trained = await ask(page, 'the ', 'cat')
  const plain = await ask(page, 'the ', 'add')
  expect(trained.text).not.toBe(plain.text)
  expect(trained.meta).toContain('cat')

  await page.getByRole('tab', { name: 'Train' }).click()
  await page.getByRole('button', { name: 'Remove cat' }).click()
  await page.getByLabel('Adapter files').setInputFiles({ name: 'cat.zip', mimeType: 'application/zip', buffer: zip })
  await page.getByText('is among the adapters now').last().waitFor()
  expect((await ask(page, 'the ', 'cat')).text).toBe(trained.text)

  // A training that is cancelled leaves nothing; a broken file is refused with the reason.
  await page.getByRole('tab', { name: 'Train' }).click()
  await page.getByLabel('Name').fill('dog')
  await page.getByLabel('Steps').fill('5000')
  await page.getByRole('button', { name: 'Train', exact: true }).click()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByText('Cancelled; nothing was kept.').waitFor()
  expect(await page.getByLabel('Adapter', { exact: true }).locator('option').allTextContents()).not.toContain('dog')
  await page
    .getByLabel('Adapter files')
    .setInputFiles({ name: 'x.zip', mimeType: 'application/zip', buffer: Buffer.from('no') })
  await page.getByText('it is no .zip').waitFor()
})

test('no view has a fault that an automatic check of accessibility finds, light or dark, wide or narrow', async () => {
  for (const options of [
    { colorScheme: 'light', viewport: { width: 1280, height: 800 } },
    { colorScheme: 'dark', viewport: { width: 360, height: 740 }, reducedMotion: 'reduce' },
  ] as const) {
    const page = await openPage(playground.url, options)
    for (const name of ['Chat', 'Compare', 'Train']) {
      await page.getByRole('tab', { name }).click()
      expect(await accessibilityFaults(page)).toEqual([])
      expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
    }
    await page.getByRole('button', { name: 'Verified' }).click()
    expect(await accessibilityFaults(page)).toEqual([])
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Open another bundle' }).click()
    expect(await accessibilityFaults(page)).toEqual([])
    await page.close()
  }
})

test('says why a bundle is refused, and keeps restricted adapters closed until asked', async () => {
  const server = await servePlayground({
    page: join(folder, 'playground'),
    bundle: await tinyBundle({ restricted: ['code'] }),
  })
  const page = await openPage(server.url)
  const adapters = () => page.getByLabel('Adapter', { exact: true }).locator('option').allTextContents()
  await expect.poll(adapters, patient).toEqual(['Automatic: the router', 'add'])
  await page.getByRole('switch', { name: 'Restricted adapters' }).check()
  await expect.poll(adapters, patient).toEqual(['Automatic: the router', 'add', 'code'])

  const altered = await tinyBundle()
  const weights = altered.contents.get('adapters/add.safetensors')!
  weights[weights.length - 1] ^= 1
  await page.getByRole('button', { name: 'Open another bundle' }).click()
  await page.getByLabel('Archive of a bundle').setInputFiles({
    ...{ name: 'altered.zip', mimeType: 'application/zip', buffer: Buffer.from(await writeZip(altered)) },
  })
  await page.getByText('adapters/add.safetensors was altered: its sha256').waitFor()
  await page.getByLabel('Archive of a bundle').setInputFiles({
    ...{ name: 'whole.zip', mimeType: 'application/zip', buffer: Buffer.from(await writeZip(await tinyBundle())) },
  })
  await expect.poll(adapters, patient).toEqual(['Automatic: the router', 'add', 'code'])
  await page.getByRole('button', { name: 'Open another bundle' }).click()
  await page.getByLabel('Or an address on this host').fill('https://example.org/bundle/')
  await page.getByRole('button', { name: 'Open', exact: true }).click()
  await page.getByText('This page asks no other host for anything').waitFor()
  await page.close()
  await server.close()
})

test('a GPU that goes away is told of, and the adapters of the page stay', async () => {
  await shared.evaluate(() => {
    const { lastWorker } = globalThis as unknown as { lastWorker: Worker }
    lastWorker.postMessage({ id: 1_000_000, request: { kind: 'loseDevice' } })
  })
  await shared.getByText('The GPU went away for a moment').waitFor()
  expect(await accessibilityFaults(shared)).toEqual([])
  expect(await shared.getByLabel('Adapter', { exact: true }).locator('option').allTextContents()).toContain('cat')
})

test('a browser without WebGPU is told what to do', async () => {
  const page = await browser.newPage()
  await page.addInitScript("Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })")
  await page.goto(playground.url)
  await page.getByRole('heading', { name: 'This browser has no WebGPU' }).waitFor()
  expect(await page.locator('.yours').textContent()).toContain('Chrome on Linux')
  expect(await accessibilityFaults(page)).toEqual([])
  await page.close()
})

test('nothing was asked of another host, and no page had a fault', () => {
  expect(faults).toEqual([])
})

test('the server serves the page and the files of the bundle, to this machine, and nothing else', async () => {
  const { origin } = new URL(playground.url)
  const index = await fetch(`${origin}/`)
  expect(index.headers.get('content-type')).toBe('text/html; charset=utf-8')
  expect(index.headers.get('cross-origin-opener-policy')).toBe('same-origin')
  expect((await fetch(`${origin}/bundle/manifest.json`)).headers.get('content-type')).toBe('application/json')
  const status = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
    new Promise<number>((resolve, reject) => {
      request(origin, { path, headers, method }, (response) => resolve(response.resume().statusCode!))
        .on('error', reject)
        .end()
    })
  for (const path of ['/bundle/../package.json', '/%2e%2e/package.json', '/bundle/%2e%2e/%2e%2e/etc/passwd', '/src/'])
    expect(await status(path)).toBe(404)
  for (const path of ['/..%5cpackage.json', '/%00', '/%', '/package.json', '/bundle/src/none.js'])
    expect(await status(path)).toBe(404)
  expect(await status('/', { Host: 'evil.example' })).toBe(403)
  expect(await status('/', {}, 'POST')).toBe(405)
})
