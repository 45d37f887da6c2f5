// Trains the built-in teacher, models/tiny-teacher, from its seed:  npx node examples/train-teacher/train.ts [--steps N]
// About half an hour on two cores with the software GPU. --out names another folder, --resume continues a stopped run.
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Random } from '../../src/core/random.ts'
import { tinyCapabilities } from '../../src/demo/capabilities.ts'
import { type DecoderConfig, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import { writeFileAtomic } from '../../src/host/files.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { add } from '../../src/kernels/add.ts'
import { crossEntropy } from '../../src/kernels/losses.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { drawBatch, uploadBatch } from '../../src/train/batch.ts'
import { evaluate } from '../../src/train/evaluate.ts'
import { trainLoop } from '../../src/train/loop.ts'
import { Optimiser } from '../../src/train/optimiser.ts'
import { linearSchedule } from '../../src/train/schedule.ts'

const { values: options } = parseArgs({
  options: {
    steps: { type: 'string', default: '800' },
    out: { type: 'string', default: 'models/tiny-teacher' },
    seed: { type: 'string', default: '42' },
    resume: { type: 'boolean', default: false },
  },
})
const seed = Number(options.seed)
const steps = Number(options.steps)
const tokens = 48
const rows: Record<string, number> = { add: 24, code: 18, prose: 18 }
const config: DecoderConfig = {
  vocabularySize: 96,
  width: 128,
  layers: 6,
  heads: 4,
  kvHeads: 2,
  headSize: 32,
  ffnWidth: 344,
  normEps: 1e-5,
  ropeTheta: 10_000,
  contextLength: 256,
  tiedHead: true,
  eosId: 0,
}

const checkpoint = join(options.out, 'training.safetensors')
await mkdir(options.out, { recursive: true })
using gpu = await Gpu.open(await openGpuRoot())
console.error(`Training on ${gpu.name}`)
const tokenizerJson = characterTokenizer(asciiAlphabet)
const capabilities = tinyCapabilities(loadTokenizer(tokenizerJson))

let from = 0
let tensors = randomTensors(config, new Random(seed), 0.055)
let saved: ReturnType<typeof parseSafetensors> | undefined
if (options.resume) {
  saved = parseSafetensors(await readFile(checkpoint))
  tensors = new Map([...saved.tensors].filter(([name]) => name.startsWith('model.')))
  from = Number(saved.metadata.step)
}
using model = Decoder.load(gpu, config, tensors)
using optimiser = new Optimiser(gpu, model.parameters, { decay: 0.05 })
if (saved) optimiser.load(saved.tensors)
const lr = linearSchedule({ lr: 2.5e-3, steps, warmup: 40 })
const started = performance.now()

await trainLoop({
  task: 'train teacher',
  gpu,
  from,
  steps,
  lr,
  loss(step, index) {
    // Each step draws from a stream of its own, so that a resumed run sees the same data.
    const random = new Random(seed * 1_000_003 + index)
    const terms = Object.fromEntries(
      capabilities.map((capability) => {
        const batch = drawBatch(capability, random, rows[capability.name], tokens)
        const { ids, targets, weights } = uploadBatch(step, batch)
        const losses = crossEntropy(step, model.forward(step, ids), targets)
        return [capability.name, weightedMean(step, losses, weights, batch.total)]
      }),
    )
    return { total: Object.values(terms).reduce((sum, term) => add(step, sum, term)), terms }
  },
  update: (step, gradients, index) => optimiser.update(step, gradients, lr(index)),
  async after({ step, loss, terms }) {
    const done = step + 1
    if (done % 10 === 0) {
      const seconds = ((performance.now() - started) / 1000).toFixed(0)
      const figures = Object.entries(terms).map(([name, value]) => `${name} ${value.toFixed(3)}`)
      console.error(`step ${done} of ${steps}  loss ${loss.toFixed(3)}  ${figures.join('  ')}  ${seconds} s`)
    }
    if (done % 100 === 0 || done === steps) {
      const all = new Map([...(await model.toTensors('F32')), ...(await optimiser.save())])
      await writeFileAtomic(checkpoint, writeSafetensors(all, { step: String(done) }))
    }
    if (done % 200 === 0 || done === steps)
      for (const capability of capabilities) {
        const result = await evaluate({
          gpu,
          model,
          items: capability.items(),
          unit: capability.unit,
          task: `score ${capability.name}`,
          onProgress: () => {},
        })
        console.error(`  ${capability.name}: ${capability.metric} ${result.score.toFixed(4)}`)
      }
  },
  onProgress: () => {},
})

const json = (value: object) => new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)
await writeFileAtomic(
  join(options.out, 'model.safetensors'),
  writeSafetensors(await model.toTensors('F16'), { format: 'pt' }),
)
await writeFileAtomic(join(options.out, 'config.json'), json(toHuggingFaceConfig(config, 'float16')))
await writeFileAtomic(join(options.out, 'tokenizer.json'), json(tokenizerJson))
await writeFileAtomic(
  join(options.out, 'tokenizer_config.json'),
  json({ tokenizer_class: 'PreTrainedTokenizerFast', eos_token: '\n', clean_up_tokenization_spaces: false }),
)
