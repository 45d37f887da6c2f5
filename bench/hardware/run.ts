// Every kernel at the sizes of real decoders, by the GPU's own clock, against the ceilings of the same run:
//   npm run bench:hardware -- --help
// Random weights will do: what a kernel takes does not depend on them. Every result is held against f64 at some elements first.
import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table } from '../../src/cli/output.ts'
import type { FloatType } from '../../src/core/dtype.ts'
import { dawnToggles, openGpuRoot } from '../../src/host/gpu-root.ts'
import { tuneProducts } from '../../src/kernels/tune.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { cases } from '../cases.ts'
import { type Ceilings, measureCeilings } from '../ceilings.ts'
import { checkCase } from '../check.ts'
import { deviceTime } from '../device-time.ts'
import { type MatrixRate, measureMatrixUnits } from '../matrix-units.ts'
import { stopwatch } from '../stopwatch.ts'
import { decodeWork, layerWork, type Sizes, tolerances, type Work } from './work.ts'

/** Widths of decoders that people run: SmolLM2-135M, Qwen2.5-1.5B, Llama-3.1-8B. */
const decoders: Record<string, Sizes> = {
  '135M': { width: 576, ffnWidth: 1536, heads: 9, kvHeads: 3, headSize: 64, vocabulary: 49_152 },
  '1.5B': { width: 1536, ffnWidth: 8960, heads: 12, kvHeads: 2, headSize: 128, vocabulary: 151_936 },
  '8B': { width: 4096, ffnWidth: 14_336, heads: 32, kvHeads: 8, headSize: 128, vocabulary: 128_256 },
}

const usage = `npm run bench:hardware [-- options]
  --models <names>     of ${Object.keys(decoders).join(',')}; all unless told
  --tokens <numbers>   lengths of a sequence: 512,4096
  --batches <numbers>  rows of a batch: 1,8
  --filter <text>      only kernels whose name contains it
  --robust <which>     off, on or both: the checks that trusted kernels do without, as in a browser
  --no-cases           leaves out the bench's cases, which check every op whole
  --adapter <name>     the adapter whose name contains it
  --torch <python>     beside PyTorch on the same GPU: products and attention
  --json <file>        writes everything that was measured`

const { values: options } = parseArgs({
  allowNegative: true,
  options: {
    models: { type: 'string', default: Object.keys(decoders).join(',') },
    tokens: { type: 'string', default: '512,4096' },
    batches: { type: 'string', default: '1,8' },
    filter: { type: 'string', default: '' },
    robust: { type: 'string', default: 'both' },
    cases: { type: 'boolean', default: true },
    adapter: { type: 'string' },
    torch: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

/** One kernel at one size, or why it has no time. */
interface Result {
  readonly model: string
  readonly tokens: number | null
  readonly batch: number | null
  readonly name: string
  readonly shape: string
  readonly dtype: FloatType
  readonly goal?: number
  readonly error: number | null
  /** ms of the GPU, with their quartiles. */
  readonly ms?: number
  readonly quartiles?: readonly [number, number]
  readonly gflops?: number
  readonly gbs?: number
  /** Share of what `goal` is a share of. */
  readonly share?: number
  readonly fault?: string
}

interface Measured {
  readonly robust: boolean
  readonly ceilings: Ceilings & { readonly matrixUnits: readonly MatrixRate[] }
  readonly wrongCases: readonly string[]
  readonly results: readonly Result[]
}

/** Highest rate of the matrix units in f16 with f32 sums, or of multiply-adds where there are none. */
function unitsRate({ f32GFLOPs, matrixUnits }: Measured['ceilings']): number {
  const fitting = matrixUnits.filter((unit) => unit.componentType === 'f16' && unit.resultComponentType === 'f32')
  return Math.max(f32GFLOPs, ...fitting.map(({ gflops }) => gflops))
}

async function measureWork(
  gpu: Gpu,
  work: Work,
  ceilings: Measured['ceilings'],
  gemm: number,
): Promise<Pick<Result, 'error' | 'ms' | 'quartiles' | 'gflops' | 'gbs' | 'share' | 'fault'>> {
  try {
    using held = new DisposableStack()
    const scope = held.use(gpu.scope(work.name))
    const ready = work.prepare(scope, held)
    const { error } = await (async () => {
      using step = gpu.step()
      return await ready.check(step, ready.run(step))
    })()
    if (!(error <= tolerances[work.dtype])) return { error, fault: `wrong: its error is ${error.toExponential(1)}` }
    const { median: ms, quartiles, flops, bytes } = await deviceTime(gpu, (step) => void ready.run(step), ready.before)
    const [gflops, gbs] = [flops / ms / 1e6, bytes / ms / 1e6]
    const most = { f32: ceilings.f32GFLOPs, units: unitsRate(ceilings), gemm }[work.peak]
    const share = Math.max(gflops / most, work.peak === 'gemm' ? 0 : gbs / ceilings.copyGBs)
    return { error, ms, quartiles, gflops, gbs, share }
  } catch (error) {
    return { error: null, fault: (error as Error).message.split('\n')[0] }
  }
}

async function measure(robust: boolean): Promise<Measured> {
  const root = await openGpuRoot({ adapter: options.adapter, robust })
  using gpu = await Gpu.open(root)
  const say = (line: string) => console.error(line)
  say(`${root.name}, ${robust ? 'with' : 'without'} bounds checks`)
  const time = stopwatch(gpu, false)
  const ceilings = { ...(await measureCeilings(gpu, time)), matrixUnits: await measureMatrixUnits(root) }
  const wrongCases: string[] = []
  if (options.cases)
    for (const item of cases.filter(({ name }) => name.includes(options.filter)))
      if (!(await checkCase(gpu, item)).right) wrongCases.push(item.name)
  for (const { work, chosen } of await tuneProducts(gpu)) say(`${work}: ${chosen}`)

  const results: Result[] = []
  const dtypes: FloatType[] = gpu.capabilities.f16 ? ['f32', 'f16'] : ['f32']
  const add = async (list: readonly Work[], where: Pick<Result, 'model' | 'tokens' | 'batch'>) => {
    let gemm = Number.NaN
    for (const work of list.filter(({ name }) => /^matmul NT/.test(name) || name.includes(options.filter))) {
      const { name, shape, dtype, goal } = work
      const found = await measureWork(gpu, work, ceilings, gemm)
      if (name.startsWith('matmul NT')) gemm = found.gflops ?? Number.NaN
      results.push({ ...where, name, shape, dtype, goal, ...found })
      say(lineOf(results.at(-1)!).join('  '))
    }
  }
  for (const model of options.models.split(',')) {
    for (const tokens of options.tokens.split(',').map(Number))
      for (const batch of options.batches.split(',').map(Number))
        for (const dtype of dtypes)
          await add(layerWork(decoders[model], batch, tokens, dtype), { model, tokens, batch })
    await add(decodeWork(decoders[model], gpu.capabilities.f16), { model, tokens: null, batch: null })
  }
  return { robust, ceilings, wrongCases, results }
}

function lineOf({ model, name, shape, dtype, ms, quartiles, gflops, gbs, share, goal, error, fault }: Result) {
  const head = [model, name, shape, dtype]
  if (fault !== undefined || ms === undefined) return [...head, fault ?? '-']
  return [
    ...head,
    `${ms.toPrecision(3)} (${quartiles!.map((value) => value.toPrecision(3)).join('-')})`,
    gflops!.toFixed(0),
    gbs!.toFixed(1),
    Number.isNaN(share!) ? '-' : share!.toFixed(2),
    goal === undefined ? '-' : `${goal.toFixed(2)}${share! >= goal ? '' : ' missed'}`,
    error!.toExponential(0),
  ]
}

/** Times of PyTorch for the products and the attention of `results`, in the same order; null where it has none. */
function torchTimes(python: string, sizes: readonly object[]): { about: string; ms: Record<string, number | null>[] } {
  const script = join(import.meta.dirname, '../peers/torch-shapes.py')
  return JSON.parse(execFileSync(python, [script], { input: JSON.stringify(sizes), encoding: 'utf8' }))
}

function torchTable(python: string, { results }: Measured): { about: string; rows: string[][] } {
  const places = [...new Map(results.map((one) => [`${one.model} ${one.batch} ${one.tokens}`, one])).values()]
  const sizes = places
    .filter(({ tokens }) => tokens !== null)
    .map(({ model, batch, tokens }) => ({ ...decoders[model], model, batch, tokens }))
  const { about, ms } = torchTimes(python, sizes)
  const rows = sizes.flatMap(({ model, batch, tokens }, i) =>
    results
      .filter((one) => one.model === model && one.batch === batch && one.tokens === tokens && one.ms !== undefined)
      .flatMap((one) => {
        const theirs = ms[i][`${one.name.startsWith('matmul') ? one.name.slice(0, 9) : one.name} ${one.dtype}`]
        return theirs
          ? [
              [
                model,
                one.name,
                one.shape,
                one.dtype,
                one.ms!.toPrecision(3),
                theirs.toPrecision(3),
                (theirs / one.ms!).toFixed(2),
              ],
            ]
          : []
      }),
  )
  return { about, rows }
}

/** @returns the exit code. */
async function main(): Promise<number> {
  const unknown = options.models.split(',').filter((name) => !(name in decoders))
  const numbers = [...options.tokens.split(','), ...options.batches.split(',')].map(Number)
  const wanted = { off: [false], on: [true], both: [false, true] }[options.robust]
  if (options.help || unknown.length > 0 || !wanted || !numbers.every((n) => Number.isInteger(n) && n > 0)) {
    console[options.help ? 'log' : 'error'](usage)
    return options.help ? 0 : 2
  }
  const measured: Measured[] = []
  for (const robust of wanted) measured.push(await measure(robust))
  for (const { robust, ceilings, wrongCases, results } of measured) {
    const units = ceilings.matrixUnits.map(
      ({ M, N, K, componentType, resultComponentType, gflops }) =>
        `, units ${M}×${N}×${K} ${componentType} to ${resultComponentType} ${gflops.toFixed(0)}`,
    )
    console.log(
      `\n${robust ? 'With' : 'Without'} bounds checks. Copy ${ceilings.copyGBs.toFixed(0)} GB/s, GFLOP/s: f32 ` +
        `${ceilings.f32GFLOPs.toFixed(0)}, f16 ${ceilings.f16GFLOPs?.toFixed(0) ?? '-'}${units.join('')}; a dispatch in a chain ` +
        `${ceilings.dispatchMicroseconds.toFixed(1)} µs, recorded ${ceilings.recordMicroseconds.toFixed(1)}, replayed ` +
        `${ceilings.replayMicroseconds.toFixed(1)}`,
    )
    if (options.cases) console.log(`Wrong of the ${cases.length} cases: ${wrongCases.join(', ') || 'none'}`)
    const header = ['', 'kernel', 'size', '', 'ms (quartiles)', 'GFLOP/s', 'GB/s', 'share', 'goal', 'f64 error']
    console.log(table(header, results.filter(({ fault }) => !fault).map(lineOf)))
    for (const { model, name, shape, dtype, fault } of results)
      if (fault) console.log(`${model} ${name} ${shape} ${dtype}: ${fault}`)
  }
  const torch = options.torch ? torchTable(options.torch, measured[0]) : undefined
  if (torch)
    console.log(
      `\n${torch.about}\n${table(['', 'kernel', 'size', '', 'ours, ms', 'theirs, ms', 'theirs over ours'], torch.rows)}`,
    )
  if (options.json) {
    const { vendor, architecture, device, description } = (await openGpuRoot({ adapter: options.adapter })).adapter.info
    const facts = { date: new Date().toISOString(), host: `Node ${process.versions.node}` }
    const adapter = { vendor, architecture, device, description }
    const toggles = wanted.map((robust) => dawnToggles(robust))
    await writeFile(options.json, `${JSON.stringify({ ...facts, adapter, toggles, measured, torch }, null, 2)}\n`)
  }
  const faulty = measured.some(({ wrongCases, results }) => wrongCases.length > 0 || results.some((one) => one.fault))
  return faulty ? 1 : 0
}

process.exit(
  await main().catch((error: Error) => {
    console.error(error.message)
    return 1
  }),
)
