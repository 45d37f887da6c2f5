// Times every op against what the adapter can do at most:  npm run bench [-- --json out.json] [--filter text] [--quick]
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import Benchmark from 'benchmark'
import { table } from '../src/cli/output.ts'
import { openGpuRoot } from '../src/host/gpu-root.ts'
import { ceilings } from '../src/kernels/wgsl.gen.ts'
import { grid } from '../src/runtime/entry.ts'
import { Gpu } from '../src/runtime/gpu.ts'
import type { Step, StepCost } from '../src/runtime/step.ts'
import { cases, Maker } from './cases.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    filter: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    adapter: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (options.help) {
  console.log('npm run bench [-- --filter <text>] [--quick] [--json <file>] [--adapter <name>]')
  process.exit(0)
}

const root = await openGpuRoot({ adapter: options.adapter })
using gpu = await Gpu.open(root)
console.error(`Timing on ${root.name}`)

/** Times of one run in ms: median and quartiles over the samples that benchmark took. */
interface Timing {
  readonly median: number
  readonly quartiles: readonly [number, number]
  readonly samples: number
}

/** Times `work`, recorded `repeat` times into one step, until the GPU is done. */
function time(work: (step: Step) => void, repeat = 1): Promise<Timing> {
  const run = async () => {
    using step = gpu.step()
    for (let i = 0; i < repeat; i++) work(step)
    await gpu.finish()
  }
  return new Promise((resolve, reject) => {
    const bench = new Benchmark('op', {
      defer: true,
      minSamples: options.quick ? 3 : 20,
      maxTime: options.quick ? 0.1 : 1,
      minTime: 0.005,
      fn: (deferred: { resolve(): void }) => {
        run().then(() => deferred.resolve(), reject)
      },
      onComplete(this: Benchmark) {
        const sorted = [...this.stats.sample].sort((a, b) => a - b).map((seconds) => (1000 * seconds) / repeat)
        const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]
        resolve({ median: at(0.5), quartiles: [at(0.25), at(0.75)], samples: sorted.length })
      },
      onError: (event: { target: { error: Error } }) => reject(event.target.error),
    })
    run().then(() => bench.run({ async: true }), reject)
  })
}

/** Highest rates of this adapter, measured: bytes and operations a second. */
async function measureCeilings() {
  using scope = gpu.scope('ceilings')
  const size = 1 << 23 // f32: 32 MiB, more than most caches
  const x = scope.filled('f32', [size], 1)
  const y = scope.empty('f32', [size])
  const copy = await time((step) =>
    step.run(ceilings.copy, { x, y }, { size: size / 4, rounds: 0 }, { workgroups: grid(size / 256), flops: 0 }),
  )
  const invocations = 1 << 14
  const rounds = 64
  const flops = invocations * rounds * 32 * 8
  const rate = async (dtype: 'f32' | 'f16') => {
    const sums = scope.empty(dtype, [invocations])
    const { median } = await time((step) =>
      step.run(ceilings.multiplyAdd, { sums }, { size: 0, rounds }, { workgroups: [invocations / 64], flops }),
    )
    return flops / median / 1e6
  }
  const tiny = scope.filled('f32', [64], 1)
  const chain = await time(
    (step) => step.run(ceilings.copy, { x: tiny, y }, { size: 1, rounds: 0 }, { workgroups: [1], flops: 0 }),
    1000,
  )
  return {
    copyGBs: (2 * 4 * size) / copy.median / 1e6,
    f32GFLOPs: await rate('f32'),
    f16GFLOPs: gpu.capabilities.f16 ? await rate('f16') : null,
    dispatchMicroseconds: chain.median * 1000,
  }
}

interface Result {
  readonly name: string
  readonly ms: number
  readonly quartiles: readonly [number, number]
  readonly gflops: number
  readonly gbs: number
  /** Share of the ceiling: t_roof / t. */
  readonly r: number
}

const most = await measureCeilings()
console.log(
  `Ceilings: copy ${most.copyGBs.toFixed(1)} GB/s, f32 ${most.f32GFLOPs.toFixed(1)} GFLOP/s, ` +
    `f16 ${most.f16GFLOPs?.toFixed(1) ?? '-'} GFLOP/s, a dispatch in a chain ${most.dispatchMicroseconds.toFixed(1)} µs\n`,
)

function result(name: string, { median, quartiles }: Timing, { flops, bytes }: StepCost): Result {
  const roof = Math.max(flops / most.f32GFLOPs, bytes / most.copyGBs) / 1e6
  return { name, ms: median, quartiles, gflops: flops / median / 1e6, gbs: bytes / median / 1e6, r: roof / median }
}

const results: Result[] = []
for (const item of cases.filter(({ name }) => name.includes(options.filter))) {
  using scope = gpu.scope(item.name)
  const op = item.setup(new Maker(scope))
  const cost = (work: (step: Step) => void): StepCost => {
    using step = gpu.step()
    work(step)
    return step.cost
  }
  const forward = (step: Step) => step.withoutGradients(() => void op(step))
  const both = (step: Step) => {
    const y = op(step)
    step.backward(y, { seed: y })
  }
  results.push(result(item.name, await time(forward), cost(forward)))
  if (item.backward) results.push(result(`${item.name}, with gradient`, await time(both), cost(both)))
  process.stderr.write(`${results.length} measured\r`)
}

const rows = results.map(({ name, ms, quartiles, gflops, gbs, r }) => [
  name,
  ms.toFixed(3),
  `${quartiles[0].toFixed(3)}-${quartiles[1].toFixed(3)}`,
  gflops.toFixed(2),
  gbs.toFixed(2),
  r.toFixed(3),
])
console.log(table(['op', 'ms', 'quartiles', 'GFLOP/s', 'GB/s', 'R'], rows))
if (options.json) {
  const facts = { adapter: root.name, node: process.versions.node, date: new Date().toISOString() }
  await writeFile(options.json, `${JSON.stringify({ ...facts, ceilings: most, results }, null, 2)}\n`)
  console.error(`Written to ${options.json}`)
}
process.exit(0)
