// Time to the first token from a warm cache: a page of Chromium against Node, both on SwiftShader, by turns.
//   node bench/browser/first-token.ts <bundle folder> [--runs 5] [--prompt text] [--capability name]
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { FolderFiles } from '../../src/host/files.ts'
import { NexusModel, type PromptOptions } from '../../src/inference/nexus-model.ts'
import { addBundle, openPage, pageFiles, serveSite, startChromium } from '../../tests/browser/chromium.ts'

interface Times {
  /** From the beginning of loading to the first token, in ms. */
  readonly all: number
  /** From the prompt to the first token, in ms. */
  readonly first: number
}

/** What is measured: the same text is run in Node and in the page. */
const measure = `const started = performance.now()
const model = await load()
const loaded = performance.now()
const stream = model.stream(prompt)
await stream.next()
const first = performance.now()
await stream.return()
model[Symbol.dispose]()
return { all: first - started, first: first - loaded }`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '5' },
    prompt: { type: 'string' },
    capability: { type: 'string' },
    node: { type: 'boolean', default: false },
  },
})
const bundle = resolve(positionals[0])

async function inNode(prompt: PromptOptions): Promise<Times> {
  const run = new Function('load', 'prompt', `return (async () => { ${measure} })()`)
  return run(() => NexusModel.load(bundle), prompt) as Promise<Times>
}

const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]

async function main(): Promise<void> {
  const manifest = JSON.parse(new TextDecoder().decode(await new FolderFiles(bundle).read('manifest.json')))
  const [name, { example }] = Object.entries(manifest.capabilities)[0] as [string, { example: string }]
  const prompt = { prompt: values.prompt ?? example, capability: values.capability ?? name, maxTokens: 4 }
  if (values.node) {
    // The first time starts Dawn and warms the process, as the browser was warmed.
    await inNode(prompt)
    console.log(JSON.stringify(await inNode(prompt)))
    return
  }
  const driver = ['/usr/lib/chromium/vk_swiftshader_icd.json', process.env.VK_ICD_FILENAMES].find(
    (path) => path && existsSync(path),
  )
  const site = await pageFiles()
  await addBundle(site, '/bundle/', new FolderFiles(bundle))
  await using server = await serveSite(site)
  const browser = await startChromium()
  const page = await openPage(browser, server.url)
  const inPage = () =>
    page.evaluate<Times>(
      `(async (load, prompt) => { ${measure} })(() => nexus.BrowserModel.load('/bundle/'), ${JSON.stringify(prompt)})`,
    )
  await inPage()
  const [chromium, node]: [Times[], Times[]] = [[], []]
  for (let i = 0; i < Number(values.runs); i++) {
    chromium.push(await inPage())
    const args = [join(import.meta.dirname, 'first-token.ts'), bundle, '--node', '--prompt', prompt.prompt]
    const text = execFileSync(process.execPath, ['--no-warnings', ...args, '--capability', prompt.capability], {
      encoding: 'utf8',
      env: { ...process.env, VK_ICD_FILENAMES: driver },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    node.push(JSON.parse(text) as Times)
  }
  await browser.close()
  for (const key of ['all', 'first'] as const) {
    const [a, b] = [median(chromium.map((times) => times[key])), median(node.map((times) => times[key]))]
    const what = key === 'all' ? 'load and first token' : 'first token'
    console.log(`${what}: Chromium ${a.toFixed(0)} ms, Node ${b.toFixed(0)} ms, ${(a / b).toFixed(2)} times`)
  }
}

await main()
process.exit(0)
