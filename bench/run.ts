// Times every op against what the adapter can do at most, and against other libraries on the same adapter:
//   npm run bench -- --help
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table } from '../src/cli/output.ts'
import type { FloatType } from '../src/core/dtype.ts'
import { dawnToggles, type GpuRoot, openGpuRoot } from '../src/host/gpu-root.ts'
import { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import { cases, Maker } from './cases.ts'
import { type Ceilings, costOf, measureCeilings, ratesOf } from './ceilings.ts'
import { checkCase, uploadAll } from './check.ts'
import { compareFiles } from './compare.ts'
import { generationTable, llamaTable, measureGeneration } from './generation.ts'
import { printGrowth } from './growth.ts'
import { measureMatrixUnits } from './matrix-units.ts'
import { pcaTables } from './pca.ts'
import { type Comparison, caseLine, compareWithPeers, type Rival } from './peers/comparison.ts'
import { comparisonTable } from './peers/comparison-table.ts'
import { fullPace, quickPace } from './peers/duel.ts'
import { PeerProcess } from './peers/process.ts'
import { type BenchFile, readBenchFile } from './report.ts'
import { type Stopwatch, stopwatch } from './stopwatch.ts'

const peerNames = ['ort', 'tfjs', 'jax']
const usage = `npm run bench [-- options]
  --filter <text>      only ops whose name contains it
  --quick              a few samples an op, and none of a thousand million operations against the peers
  --only <part>        ops: against the ceilings; peers: against the peers; generation: tokens a second of a model;
                       pca: the PCAs of a profile
  --peers <names>      which peers, of ${peerNames.join(',')}
  --adapter <name>     the adapter whose name contains it
  --robust             with the checks that trusted kernels do without, as in a browser
  --json <file>        writes everything that was measured
  --compare <a> <b>    ratios between two such files
  --growth             time per element and attention's memory as sizes grow`

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    filter: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    peers: { type: 'string', default: peerNames.join(',') },
    adapter: { type: 'string' },
    robust: { type: 'boolean', default: false },
    json: { type: 'string' },
    compare: { type: 'boolean', default: false },
    growth: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

/** Every op of the library, forward and with its gradient: checked against f64, and timed where that is right. */
async function measureOps(gpu: Gpu, time: Stopwatch, most: Ceilings): Promise<Pick<BenchFile, 'results' | 'wrong'>> {
  const results: BenchFile['results'] = []
  const wrong: BenchFile['wrong'] = []
  const measure = async (name: string, work: (step: Step) => void, error: number) => {
    const { median, quartiles, samples } = await time(work)
    const timed: [number, number] = [...quartiles]
    results.push({ name, ms: median, quartiles: timed, samples, error, ...ratesOf(costOf(gpu, work), median, most) })
    if (process.stderr.isTTY) process.stderr.write(`${results.length} measured\r`)
  }
  for (const item of cases.filter(({ name }) => name.includes(options.filter))) {
    const { error, gradientError, right } = await checkCase(gpu, item)
    if (!right) {
      wrong.push({ name: item.name, error, ...(gradientError === undefined ? {} : { gradientError }) })
      continue
    }
    using scope = gpu.scope(item.name)
    const inputs = uploadAll(item.inputs(new Maker()), scope)
    await measure(item.name, (step) => step.withoutGradients(() => void item.op(step, inputs)), error)
    if (gradientError !== undefined)
      await measure(
        `${item.name}, with gradient`,
        (step) => {
          const y = item.op(step, inputs) as Tensor<FloatType>
          step.backward(y, { seed: y })
        },
        gradientError,
      )
  }
  return { results, wrong }
}

/** The peers that start, each in its process, and what each says: its version, or why it does not start. */
async function startPeers(names: readonly string[]) {
  const versions: Record<string, string> = {}
  const rivals: (Rival & Disposable)[] = []
  for (const name of names) {
    const peer = new PeerProcess(name, options.adapter)
    try {
      versions[name] = String(await peer.ask({ do: 'open' }))
    } catch (error) {
      versions[name] = `does not start: ${(error as Error).message}`
      console.error(`${name} ${versions[name]}`)
      peer[Symbol.dispose]()
      continue
    }
    rivals.push({
      name,
      async side(item) {
        const result = (await peer.ask({ do: 'prepare', name: item.name })) as Float64Array | null
        if (!result) return undefined
        return {
          read: async () => result,
          time: async (count) => (await peer.ask({ do: 'time', count })) as number[],
        }
      },
      [Symbol.dispose]: () => peer[Symbol.dispose](),
    })
  }
  return { versions, rivals }
}

function opsTable({ results, wrong }: Pick<BenchFile, 'results' | 'wrong'>): string {
  const rows = results.map(({ name, ms, quartiles, gflops, gbs, r, error }) => [
    name,
    ms.toFixed(3),
    `${quartiles[0].toFixed(3)}-${quartiles[1].toFixed(3)}`,
    gflops.toFixed(2),
    gbs.toFixed(2),
    r.toFixed(3),
    error.toExponential(0),
  ])
  const shown = (error: number | null) => (error ?? Number.POSITIVE_INFINITY).toExponential(1)
  const faults = wrong.map(
    ({ name, error, gradientError }) =>
      `${name} is wrong and not timed: its error is ${shown(error)}` +
      (gradientError === undefined ? '' : `, of its gradients ${shown(gradientError)}`),
  )
  const timed = table(['op', 'ms', 'quartiles', 'GFLOP/s', 'GB/s', 'R', 'f64 error'], rows)
  return [timed, ...faults].join('\n')
}

function ceilingsLine(most: BenchFile['ceilings']): string {
  const matrixUnits = most.matrixUnits.map(
    ({ M, N, K, componentType, resultComponentType, gflops }) =>
      `, matrix units ${M}×${N}×${K} ${componentType} to ${resultComponentType} ${gflops.toFixed(0)} GFLOP/s`,
  )
  return (
    `Ceilings: copy ${most.copyGBs.toFixed(1)} GB/s, f32 ${most.f32GFLOPs.toFixed(1)} GFLOP/s, ` +
    `f16 ${most.f16GFLOPs?.toFixed(1) ?? '-'} GFLOP/s${matrixUnits.join('')}; a dispatch in a chain ` +
    `${most.dispatchMicroseconds.toFixed(1)} µs, recording an op ${most.recordMicroseconds.toFixed(1)} µs, ` +
    `replaying it ${most.replayMicroseconds.toFixed(1)} µs`
  )
}

function factsOf(root: GpuRoot): Pick<BenchFile, 'format' | 'host' | 'adapter' | 'driver' | 'toggles' | 'date'> {
  const { vendor, architecture, device, description } = root.adapter.info
  const { enabled, disabled } = dawnToggles(options.robust)
  return {
    format: 'nexus-bench-2',
    host: `Node ${process.versions.node}`,
    adapter: root.name,
    driver: { vendor, architecture, device, description, manifest: process.env.VK_ICD_FILENAMES ?? null },
    toggles: { enabled: [...enabled], disabled: [...disabled] },
    date: new Date().toISOString(),
  }
}

/** @returns the exit code. */
async function main(): Promise<number> {
  if (options.help) {
    console.log(usage)
    return 0
  }
  const names = options.peers.split(',').filter(Boolean)
  const known =
    names.every((name) => peerNames.includes(name)) &&
    [undefined, 'ops', 'peers', 'generation', 'pca'].includes(options.only)
  if (!known || positionals.length !== (options.compare ? 2 : 0)) {
    console.error(usage)
    return 2
  }
  if (options.compare) {
    console.log(compareFiles(readBenchFile(positionals[0]), readBenchFile(positionals[1])))
    return 0
  }
  const root = await openGpuRoot({ adapter: options.adapter, robust: options.robust })
  using gpu = await Gpu.open(root)
  console.error(`Timing on ${root.name}`)
  const time = stopwatch(gpu, options.quick)
  if (options.growth) return (await printGrowth(gpu, time)) ? 0 : 1

  const ceilings = { ...(await measureCeilings(gpu, time)), matrixUnits: await measureMatrixUnits(root) }
  console.log(`${ceilingsLine(ceilings)}\n`)
  let ops: Pick<BenchFile, 'results' | 'wrong'> = { results: [], wrong: [] }
  if (options.only === undefined || options.only === 'generation') {
    const { model, generation, llama } = await measureGeneration(gpu, ceilings, options.quick)
    console.log(`Generation, ${model}\n${generationTable(generation)}\n`)
    if (llama.length > 0) console.log(`${llamaTable(llama, generation)}\n`)
  }
  if (options.only === undefined || options.only === 'ops') {
    ops = await measureOps(gpu, time, ceilings)
    console.log(opsTable(ops))
  }
  if ((options.only === undefined && options.filter === '') || options.only === 'pca')
    console.log(`\n${await pcaTables(gpu, ceilings, options.quick)}`)
  let peers: BenchFile['peers'] = {}
  let comparisons: Comparison[] = []
  if ((options.only === undefined || options.only === 'peers') && names.length > 0) {
    if (!existsSync(join(import.meta.dirname, 'peers/node_modules'))) {
      console.error('The peers are not installed. Run: npm ci --prefix bench/peers')
      if (options.only) return 1
    } else {
      using stack = new DisposableStack()
      const started = await startPeers(names)
      for (const rival of started.rivals) stack.use(rival)
      peers = started.versions
      comparisons = await compareWithPeers(gpu, {
        rivals: started.rivals,
        pace: options.quick ? quickPace : fullPace,
        filter: options.filter,
        ceilings,
        onCase: (done) => console.error(caseLine(done)),
      })
      console.log(`\n${comparisonTable(comparisons, names)}`)
    }
  }
  if (options.json) {
    // What is not finite has no number in JSON and becomes null.
    const file = { ...factsOf(root), quick: options.quick, ceilings, ...ops, peers, comparisons }
    await writeFile(options.json, `${JSON.stringify(file, null, 2)}\n`)
    console.error(`Written to ${options.json}`)
  }
  return ops.wrong.length > 0 || comparisons.some(({ ours }) => ours === null) ? 1 : 0
}

process.exit(
  await main().catch((error: Error) => {
    console.error(error.message)
    return 1
  }),
)
