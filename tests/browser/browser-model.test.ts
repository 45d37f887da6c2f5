import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeZip } from '../../src/bundle/zip.ts'
import { type Answer, NexusModel } from '../../src/inference/nexus-model.ts'
import { adapterBytes, manifestOf, tinyBundle } from '../bundle/tiny-bundle.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { addBundle, hasChromium, openPage, pageFiles, serveSite, startChromium, type TestServer } from './chromium.ts'

const prompts = [
  { prompt: 'abc', capability: 'add', maxTokens: 12 },
  { prompt: 'x = 5 +', capability: 'code', maxTokens: 12 },
  { prompt: 'Hello', maxTokens: 6 },
]

// Texts that are evaluated in the page, where `nexus` is the library.
const inPage = <T>(page: Page, body: string): Promise<T> => page.evaluate(`(async () => { ${body} })()`) as Promise<T>

// Chromium clears a kernel's memory, which its software GPU takes long to compile: a second for the first token.
describe.skipIf(!hasChromium)('in Chromium', { timeout: 180_000 }, () => {
  let browser: Browser
  let server: TestServer
  let page: Page

  beforeAll(async () => {
    const site = await pageFiles()
    const files = await tinyBundle()
    await addBundle(site, '/bundle/', files)
    await addBundle(site, '/closed/', await tinyBundle({ restricted: ['code'] }))
    site.set('/bundle.zip', await writeZip(files))
    server = await serveSite(site)
    browser = await startChromium()
    page = await openPage(browser, server.url)
  }, 60_000)
  afterAll(async () => {
    await browser?.close()
    await server?.[Symbol.asyncDispose]()
  })

  test('a page gives the same greedy tokens as Node; loaded again, it fetches nothing but the manifest', () =>
    withoutLeaks(async () => {
      using model = await NexusModel.load(await tinyBundle(), { gpu })
      const want: Answer[] = []
      for (const prompt of prompts) want.push(await model.generate(prompt))
      const run = (asked: typeof prompts) =>
        inPage<{ answers: Answer[]; pieces: string; steps: string[] }>(
          page,
          `const steps = []
           const model = await nexus.BrowserModel.load('/bundle/', { onProgress: ({ task, done, total }) => steps.push(task + ' ' + (done === total)) })
           const answers = []
           for (const prompt of ${JSON.stringify(asked)}) answers.push(await model.generate(prompt))
           let pieces = ''
           for await (const piece of model.stream(${JSON.stringify(prompts[0])})) pieces += piece
           model.close()
           return { answers, pieces, steps }`,
        )
      const plain = ({ text, capability, chosenBy, tokens }: Answer) => ({
        text,
        capability,
        chosenBy,
        tokens,
      })
      const first = await run(prompts)
      expect(first.answers.map(plain)).toEqual(want.map(plain))
      expect(first.pieces).toBe(want[0].text)
      expect(first.steps).toContain('fetch false')
      expect(first.steps).toContain('fetch true')
      expect(first.steps.at(-1)).toBe('load true')
      server.asked.length = 0
      const second = await run(prompts.slice(0, 1))
      expect(server.asked.filter((line) => line.includes('/bundle'))).toEqual(['GET /bundle/manifest.json'])
      expect(second.answers.map(plain)).toEqual([plain(want[0])])
    }))

  test('the cache serves without the server, tells archives apart, says what it holds and forgets it', async () => {
    const load = (source: string) =>
      inPage<string>(
        page,
        `const model = await nexus.BrowserModel.load('${source}')
         model.close()
         return model.manifest.bundle_id`,
      )
    const id = manifestOf(await tinyBundle()).bundle_id
    const asked = async (source: string) => {
      server.asked.length = 0
      expect(await load(source)).toBe(id)
      return server.asked.filter((line) => line.includes('/bundle'))
    }
    await load('/bundle/')
    server.intercept = (request, response) => {
      if (request.url!.includes('/bundle')) response.destroy()
      return request.url!.includes('/bundle')
    }
    expect(await load('/bundle/')).toBe(id)
    server.intercept = undefined
    expect(await asked('/bundle.zip')).toEqual(['GET /bundle.zip'])
    expect(await asked('/bundle.zip')).toEqual(['HEAD /bundle.zip'])
    const before = await inPage<{ list: { url: string; whole: boolean; bytes: number }[]; size: number }>(
      page,
      `const cache = await nexus.BundleCache.open()
       return { list: await cache.list(), size: await cache.size() }`,
    )
    expect(before.list.map(({ url, whole }) => [new URL(url).pathname, whole]).sort()).toEqual([
      ['/bundle.zip', true],
      ['/bundle/', true],
    ])
    expect(before.size).toBeGreaterThan(before.list[0].bytes)
    const kept = await inPage<boolean[]>(
      page,
      `const cache = await nexus.BundleCache.open()
       await cache.remove(location.origin + '/bundle.zip')
       const whole = (await cache.list()).map(({ whole }) => whole)
       await cache.remove()
       return [...whole, (await cache.size()) === 0]`,
    )
    expect(kept).toEqual([true, true])
  })

  test('an adapter is swapped, added and removed without loading the backbone again', async () => {
    const bytes = JSON.stringify([...adapterBytes(1)])
    const [before, asCode, replaced, added, removed, fetched] = await inPage<string[]>(
      page,
      `const model = await nexus.BrowserModel.load('/bundle/')
       const ask = async (capability) => (await model.generate({ prompt: 'abc', capability, maxTokens: 8 })).text
       const before = await ask('add')
       const asCode = await ask('code')
       const bytes = new Uint8Array(${bytes})
       const requests = performance.getEntriesByType('resource').length
       await model.setAdapter('add', bytes)
       const replaced = await ask('add')
       await model.setAdapter('mine', bytes)
       const added = await ask('mine')
       const names = [...model.capabilities]
       await model.removeAdapter('mine')
       const removed = await ask('mine').catch((error) => names + ': ' + error.message)
       model.close()
       return [before, asCode, replaced, added, removed, String(performance.getEntriesByType('resource').length - requests)]`,
    )
    expect(replaced).toBe(asCode)
    expect(added).toBe(asCode)
    expect(before).not.toBe(asCode)
    expect(removed).toBe('add,code,mine: Cannot use capability "mine": the bundle has add, code')
    expect(fetched).toBe('0')
  })

  test('leaving a stream stops the work, and the next request is answered', async () => {
    const [pieces, answer, aborted] = await inPage<[number, string, string]>(
      page,
      `const model = await nexus.BrowserModel.load('/bundle/')
       let pieces = 0
       for await (const piece of model.stream({ prompt: 'abc', capability: 'add', maxTokens: 25 })) if (++pieces === 2) break
       const answer = (await model.generate({ prompt: 'abc', capability: 'add', maxTokens: 3 })).text
       const aborted = await nexus.BrowserModel.load('/bundle/', { signal: AbortSignal.abort() }).catch((error) => error.name)
       model.close()
       return [pieces, answer, aborted]`,
    )
    expect(pieces).toBe(2)
    expect(answer).toHaveLength(3)
    expect(aborted).toBe('AbortError')
  })

  test('a lost device is survived: in the middle of an answer and between answers', async () => {
    const [want, middle, after, adapter, reasons] = await inPage<[string, string, string, string, number]>(
      page,
      `let reasons = 0
       const model = await nexus.BrowserModel.load('/bundle/', { onLost: () => reasons++ })
       const prompt = { prompt: 'abc', capability: 'add', maxTokens: 20 }
       const want = (await model.generate(prompt)).text
       let middle = ''
       for await (const piece of model.stream(prompt)) {
         if (middle === '') model.loseDevice()
         middle += piece
       }
       await model.setAdapter('mine', new Uint8Array(${JSON.stringify([...adapterBytes(1)])}))
       await model.loseDevice()
       const after = (await model.generate(prompt)).text
       const adapter = (await model.generate({ ...prompt, capability: 'mine', maxTokens: 4 })).text
       model.close()
       return [want, middle, after, adapter, reasons]`,
    )
    expect(middle).toBe(want)
    expect(after).toBe(want)
    expect(adapter).toHaveLength(4)
    expect(reasons).toBe(2)
  })

  test('restricted capabilities stay closed, and errors keep their class and say what to do', async () => {
    const faults = await inPage<[string, string][]>(
      page,
      `const faults = []
       const keep = (error) => faults.push([error.constructor.name, error.message])
       const model = await nexus.BrowserModel.load('/closed/')
       await model.generate({ prompt: 'abc', capability: 'code' }).catch(keep)
       await model.setAdapter('code', new Uint8Array(${JSON.stringify([...adapterBytes(1)])})).catch(keep)
       await model.setAdapter('odd', new Uint8Array(8)).catch(keep)
       model.close()
       await nexus.BrowserModel.load('/nowhere/').catch(keep)
       await nexus.BrowserModel.load('http://127.0.0.1:9/').catch(keep)
       return faults.map(([name, message]) => [name.replace(/^_/, ''), message])`,
    )
    expect(faults[0]).toEqual(['RangeError', expect.stringContaining('load the bundle with enableRestricted')])
    expect(faults[1]).toEqual(['RangeError', expect.stringContaining('Cannot replace capability code')])
    expect(faults[2][0]).toBe('SyntaxError')
    expect(faults[3]).toEqual(['BundleError', expect.stringContaining('it has no manifest.json')])
    expect(faults[4]).toEqual(['NetworkError', expect.stringContaining('the server does not answer')])
  })

  test('picked files, a picked folder and a .zip file load, and a model runs in the page itself', async () => {
    const [text, ...ids] = await inPage<string[]>(
      page,
      `const { files } = await (await fetch('/bundle/manifest.json')).json()
       const paths = [...Object.keys(files), 'manifest.json']
       const blobs = await Promise.all(paths.map(async (path) => [path, await (await fetch('/bundle/' + path)).blob()]))
       const placed = blobs.map(([path, blob]) => ({ path: 'folder/' + path, file: new File([blob], path.split('/').at(-1)) }))
       const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('picked', { create: true })
       for (const [path, blob] of blobs) {
         const parts = path.split('/')
         let folder = root
         for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part, { create: true })
         const writable = await (await folder.getFileHandle(parts.at(-1), { create: true })).createWritable()
         await writable.write(blob)
         await writable.close()
       }
       const zip = await (await fetch('/bundle.zip')).blob()
       const ids = []
       for (const source of [placed, root, zip]) {
         const model = await nexus.BrowserModel.load(source)
         ids.push(model.manifest.bundle_id)
         model.close()
       }
       const here = await nexus.NexusModel.load('/bundle/')
       const { text } = await here.generate({ prompt: 'abc', capability: 'add', maxTokens: 5 })
       here[Symbol.dispose ?? Symbol.for('Symbol.dispose')]()
       return [text, ...ids]`,
    )
    const id = manifestOf(await tinyBundle()).bundle_id
    expect(text).toHaveLength(5)
    expect(ids).toEqual([id, id, id])
  })
})
