// Times a training step of LoRA and of QLoRA at SmolLM2's widths: forward, backward and update apart, against the ceilings
// of the adapter, with the host's share recorded and replayed:
//   node bench/training.ts [--layers 4] [--batch 2] [--tokens 64] [--rounds 5] [--vocabulary 49152] [--torch python3]
// --torch runs the same step in PyTorch and PEFT: on the same GPU where they know it, else on the processor, for scale.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Adapter } from '../src/adapters/adapter.ts'
import { table } from '../src/cli/output.ts'
import { Random } from '../src/core/random.ts'
import { linearShapes } from '../src/formats/model-config.ts'
import { openGpuRoot } from '../src/host/gpu-root.ts'
import { weightedMean } from '../src/kernels/weighted-mean.ts'
import { Decoder } from '../src/models/decoder.ts'
import type { WeightStorage } from '../src/models/decoder-weights.ts'
import { randomTensors } from '../src/models/random-tensors.ts'
import { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import { Optimiser } from '../src/train/optimiser.ts'
import { Replays } from '../src/train/replays.ts'
import { type Ceilings, costOf, measureCeilings, ratesOf } from './ceilings.ts'
import { stopwatch } from './stopwatch.ts'
import { timingOf } from './timing.ts'

const { values: options } = parseArgs({
  options: {
    layers: { type: 'string', default: '4' },
    batch: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '5' },
    vocabulary: { type: 'string', default: '49152' },
    torch: { type: 'string' },
  },
})
const [layers, batch, tokens, rounds] = [options.layers, options.batch, options.tokens, options.rounds].map(Number)
const rank = 16
const config = {
  ...{
    vocabularySize: Number(options.vocabulary),
    width: 576,
    layers,
    heads: 9,
    kvHeads: 3,
    headSize: 64,
    ffnWidth: 1536,
  },
  ...{ normEps: 1e-5, ropeTheta: 1e5, contextLength: 8192, tiedHead: true, eosId: 0 },
}

/** What the parts of a step are, each with those before it. */
function partsOf(gpu: Gpu, model: Decoder, adapter: Adapter, optimiser: Optimiser) {
  const random = new Random(3)
  const draw = () => Array.from({ length: batch * tokens }, () => random.integer(config.vocabularySize))
  const scope = gpu.scope('inputs')
  const [ids, targets] = [draw(), draw()].map((values) => scope.upload('u32', [batch, tokens], values))
  const weights = scope.filled('f32', [batch, tokens], 1)
  const loss = (step: Step) =>
    weightedMean(
      step,
      model.losses(step, model.hidden(step, ids, { updates: adapter }), targets),
      weights,
      batch * tokens,
    )
  const pass = (step: Step) => {
    const total = loss(step)
    return { total, gradients: step.backward(total) }
  }
  const parts = {
    forward: (step: Step) => ({ loss: step.withoutGradients(() => loss(step)) }),
    'and backward': (step: Step) => ({ loss: pass(step).total }),
    'and update': (step: Step) => {
      const { total, gradients } = pass(step)
      return { loss: total, clip: optimiser.update(step, gradients) }
    },
  }
  return { parts, scope }
}

async function measure(gpu: Gpu, storage: WeightStorage, most: Ceilings): Promise<string[][]> {
  using model = Decoder.load(gpu, config, randomTensors(config, new Random(1)), storage)
  const kinds = Object.keys(linearShapes(config))
  const ranks = Object.fromEntries(
    kinds.flatMap((kind) => Array.from({ length: layers }, (_, layer) => [`${layer}.${kind}`, rank])),
  )
  using adapter = Adapter.create(gpu, 'bench', config, ranks, new Random(2))
  using optimiser = new Optimiser(gpu, adapter.parameters)
  optimiser.begin(0)
  const { parts, scope } = partsOf(gpu, model, adapter, optimiser)
  using replays = new Replays(gpu)
  const lines: string[][] = []
  let before = 0
  for (const [name, work] of Object.entries(parts)) {
    const times: Record<'recorded' | 'replayed', { all: number[]; host: number[] }> = {
      recorded: { all: [], host: [] },
      replayed: { all: [], host: [] },
    }
    for (let round = -1; round < rounds; round++)
      for (const [kind, { all, host }] of Object.entries(times)) {
        replays.hostMilliseconds = 0
        const began = performance.now()
        await replays.run(kind === 'replayed' ? name : undefined, name, work)
        // The first round compiles the kernels.
        if (round < 0) continue
        all.push(performance.now() - began)
        host.push(replays.hostMilliseconds)
      }
    const median = (values: readonly number[]) => timingOf(values).median
    const ms = median(times.replayed.all)
    const { flops, bytes, dispatches } = costOf(gpu, work)
    const rates = ratesOf({ flops, bytes }, ms, most)
    lines.push([
      `${storage === 'nf4' ? 'QLoRA' : 'LoRA'} ${name}`,
      ms.toFixed(0),
      (ms - before).toFixed(0),
      ((1000 * batch * tokens) / ms).toFixed(0),
      rates.gflops.toFixed(1),
      rates.r.toFixed(2),
      String(dispatches),
      median(times.recorded.host).toFixed(1),
      median(times.replayed.host).toFixed(1),
    ])
    before = ms
    process.stderr.write(`${lines.at(-1)!.join('  ')}\n`)
  }
  scope[Symbol.dispose]()
  return lines
}

using gpu = await Gpu.open(await openGpuRoot())
const most = await measureCeilings(gpu, stopwatch(gpu, true))
console.log(`${gpu.name}: ${most.f32GFLOPs.toFixed(0)} GFLOP/s f32, ${most.copyGBs.toFixed(1)} GB/s copied`)
console.log(
  `SmolLM2's widths, ${layers} layers, ${batch} × ${tokens} tokens, adapters of rank ${rank} on all linear layers`,
)
const lines: string[][] = []
for (const storage of ['f32', 'nf4'] as const) lines.push(...(await measure(gpu, storage, most)))
const header = [
  '',
  'ms',
  'of it alone',
  'tokens/s',
  'GFLOP/s',
  'R',
  'dispatches',
  'host ms recorded',
  'host ms replayed',
]
console.log(table(header, lines))
if (options.torch) {
  const script = join(import.meta.dirname, 'peers/torch-step.py')
  const sizes = [layers, batch, tokens, rounds, rank, config.vocabularySize].map(String)
  console.log('The same step elsewhere; a processor, where it says so, is another device and stands for scale:')
  console.log(execFileSync(options.torch, [script, ...sizes], { encoding: 'utf8' }).trim())
}
