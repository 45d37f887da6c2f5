// What the page of `npm run bench:browser` does: the same cases, checks and turns as in Node, on the page's adapter,
// with all peers in the page. The browser's GPU process keeps its usual checks for us as for them.
import { adapterName } from '../../src/host/gpu-root.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { type Ceilings, measureCeilings } from '../ceilings.ts'
import { type Comparison, caseLine, compareWithPeers, type Rival } from '../peers/comparison.ts'
import { fullPace, quickPace } from '../peers/duel.ts'
import type { Ort } from '../peers/interfaces.ts'
import { openJax } from '../peers/jax.ts'
import { openOrt } from '../peers/ort.ts'
import { type Peer, timeRuns } from '../peers/peer.ts'
import { openTfjs } from '../peers/tfjs.ts'
import type { BenchFile } from '../report.ts'
import type { Stopwatch } from '../stopwatch.ts'
import { timingOf } from '../timing.ts'

/** How the page is told to run. */
export interface PageOptions {
  readonly quick: boolean
  readonly filter: string
  /** Some of ort, tfjs and jax. */
  readonly peers: readonly string[]
  /** jax-js does not say its version. */
  readonly jaxVersion: string
}

/** What the page measured. */
export interface PageResult extends Pick<BenchFile, 'adapter' | 'driver' | 'peers'> {
  readonly ceilings: Ceilings
  readonly comparisons: readonly Comparison[]
}

/** Given by the process that drives the browser: prints a line. */
declare const say: (line: string) => Promise<void>

const openers: Readonly<Record<string, (options: PageOptions) => Promise<Peer>>> = {
  async ort() {
    const address = '/ort/ort.webgpu.min.mjs' // served as it is: it fetches its WebAssembly from beside itself
    const ort: Ort = await import(address)
    ort.env.wasm.wasmPaths = '/ort/'
    ort.env.wasm.numThreads = 1
    return openOrt(ort)
  },
  async tfjs() {
    const tf = await import('@tensorflow/tfjs-core')
    await import('@tensorflow/tfjs-backend-webgpu')
    await import('@tensorflow/tfjs-core/dist/register_all_gradients.js')
    return openTfjs(tf)
  },
  jax: async ({ jaxVersion }) => openJax(await import('@jax-js/jax'), jaxVersion),
}

/** A peer of this page. Only the case at hand stays on its GPU. */
function rivalOf(name: string, peer: Peer): Rival {
  let last: { free(): void } | undefined
  return {
    name,
    async side(item, inputs) {
      last?.free()
      last = undefined
      const prepared = await peer.prepare(item, inputs)
      if (!prepared) return undefined
      last = prepared
      return { read: prepared.read, time: (count) => timeRuns(prepared, count) }
    },
  }
}

async function runBench(options: PageOptions): Promise<PageResult> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' })
  if (!adapter) throw new Error('This browser offers no WebGPU adapter')
  const { vendor, architecture, device, description } = adapter.info
  using gpu = await Gpu.open({ adapter, name: adapterName(adapter.info) })
  await say(`Timing on ${gpu.name}`)
  const time: Stopwatch = async (work, repeat = 1) => {
    const run = async () => {
      using step = gpu.step()
      for (let i = 0; i < repeat; i++) work(step)
      await gpu.finish()
    }
    await run()
    return timingOf((await timeRuns({ run }, options.quick ? 4 : 20)).map((ms) => ms / repeat))
  }
  const ceilings = await measureCeilings(gpu, time)
  const peers: Record<string, string> = {}
  const rivals: Rival[] = []
  for (const name of options.peers)
    try {
      const peer = await openers[name](options)
      peers[name] = peer.version
      rivals.push(rivalOf(name, peer))
    } catch (error) {
      peers[name] = `does not start: ${(error as Error).message}`
      await say(`${name} ${peers[name]}`)
    }
  const comparisons = await compareWithPeers(gpu, {
    rivals,
    pace: options.quick ? quickPace : fullPace,
    filter: options.filter,
    ceilings,
    onCase: (done) => void say(caseLine(done)),
  })
  const driver = { vendor, architecture, device, description, manifest: null }
  return { adapter: gpu.name, driver, ceilings, peers, comparisons }
}

Object.assign(globalThis, { runBench })
