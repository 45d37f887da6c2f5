// Tokens a second of a whole model: of a prompt that is read, and of an answer that is made, against what must be moved.
import { existsSync, readFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { table } from '../src/cli/output.ts'
import { Random } from '../src/core/random.ts'
import type { DecoderConfig } from '../src/formats/model-config.ts'
import { cachePath } from '../src/host/cache.ts'
import { Engine } from '../src/inference/engine.ts'
import { Decoder } from '../src/models/decoder.ts'
import { openModel } from '../src/models/open-model.ts'
import { randomTensors } from '../src/models/random-tensors.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Ceilings } from './ceilings.ts'
import { hasLlama, type LlamaTask, llamaDevices, runLlama } from './peers/llama.ts'
import { type Timing, timingOf } from './timing.ts'

/** Rates of a model in one storage. */
export interface GenerationRates {
  readonly storage: string
  /** ms a token of an answer. */
  readonly decode: Timing
  /** Bytes that a token must move: all weights once, and the keys and values of the tokens before it. */
  readonly bytes: number
  /** Share of the copy ceiling: the least time for these bytes over the time. */
  readonly r: number
  /** Share of the time that replaying costs the host: dispatches of a token, each as the ceilings measured it. */
  readonly hostShare: number
  /** ms a token of a prompt of {@link promptTokens}. */
  readonly prefill: Timing
  /** Average number of processes that wanted to run, of the last minute. */
  readonly load: number
}

/** Rates of llama.cpp on the same file and prompt. */
export interface LlamaRates {
  readonly device: (typeof llamaDevices)[number]
  readonly version: string
  readonly decode: Timing
  readonly prefill: Timing
  /** How many tokens of its answer are ours in f16, from the first on. */
  readonly agreed: number
  readonly load: number
}

const promptTokens = 128

/** An answer of llama.cpp is right when so many tokens are ours; further on the roundings of either may part them. */
const mustAgree = 8

/** The shape of SmolLM2-135M, for random weights where its file is missing. */
const likeSmol: DecoderConfig = {
  ...{ vocabularySize: 49152, width: 576, layers: 30, heads: 9, kvHeads: 3, headSize: 64, ffnWidth: 1536 },
  ...{ normEps: 1e-5, ropeTheta: 100_000, contextLength: 2048, tiedHead: true, eosId: 2 },
}

/** Rates of SmolLM2-135M in f16 and NF4; of random weights of its shape where the test models were not fetched. */
export async function measureGeneration(
  gpu: Gpu,
  ceilings: Ceilings,
  quick: boolean,
): Promise<{ model: string; generation: GenerationRates[]; llama: LlamaRates[] }> {
  const path = join(process.env.NEXUS_MODELS ?? cachePath('models'), 'SmolLM2-135M-Instruct.Q4_1.gguf')
  const known = existsSync(path)
  const random = known ? undefined : randomTensors(likeSmol, new Random(1))
  const prompt = known ? await readPrompt(path) : Array.from({ length: promptTokens + 1 }, (_, i) => 10 + 7 * i)
  const generation: GenerationRates[] = []
  let llama: LlamaRates[] = []
  for (const storage of ['f16', 'nf4'] as const) {
    if (storage === 'f16' && !gpu.capabilities.f16) continue
    const open = async () => {
      if (random) return Decoder.load(gpu, likeSmol, random, storage)
      await using files = await openModel(path)
      return await Decoder.open(gpu, files.weights, { storage })
    }
    using model = await open()
    using engine = new Engine(model, { contextLength: 512 })
    const { made, ...rates } = await ratesOf(engine, prompt, ceilings, quick)
    generation.push({ storage, ...rates })
    if (storage === 'f16' && known) llama = await besideLlama({ path, prompt, tokens: made.length, rounds: 1 }, made)
  }
  return { model: known ? 'SmolLM2-135M' : 'random weights of the shape of SmolLM2-135M', generation, llama }
}

/** The licence's first tokens: a text that a model knows, so that roundings do not choose its next token. */
async function readPrompt(path: string): Promise<number[]> {
  await using files = await openModel(path)
  return files.tokenizer
    .encode(readFileSync(join(import.meta.dirname, '../LICENSE'), 'utf8'))
    .slice(0, promptTokens + 1)
}

/** Rates of llama.cpp where its answer is right; a line about every device where there are none. */
async function besideLlama(task: LlamaTask, ours: readonly number[]): Promise<LlamaRates[]> {
  if (!hasLlama()) {
    console.error('llama.cpp is not installed. Run: npm ci --ignore-scripts --prefix bench/peers/llama')
    return []
  }
  const rates: LlamaRates[] = []
  for (const device of llamaDevices) {
    try {
      const { version, made, prefill, decode } = await runLlama(device, task)
      const parted = made.findIndex((id, i) => id !== ours[i])
      const agreed = parted < 0 ? made.length : parted
      if (agreed < Math.min(mustAgree, ours.length))
        throw new Error(`token ${agreed} is ${made[agreed]}, ours ${ours[agreed]}; it is not timed`)
      rates.push({ device, version, decode: timingOf(decode), prefill: timingOf(prefill), agreed, load: loadavg()[0] })
    } catch (error) {
      console.error(`llama.cpp on ${device}: ${(error as Error).message}`)
    }
  }
  return rates
}

async function ratesOf(engine: Engine, prompt: readonly number[], ceilings: Ceilings, quick: boolean) {
  const { model } = engine
  const { config, gpu } = model
  const answer: number[] = []
  const [prefills, decodes]: [number[], number[]] = [[], []]
  const tokens = quick ? 8 : 32
  for (let round = 0; round < (quick ? 2 : 4); round++) {
    let last = performance.now()
    let made = 0
    answer.length = 0
    for await (const [token] of engine.run([{ ids: prompt, maxTokens: tokens }])) {
      const now = performance.now()
      // The first round compiles; the first token of each waits for the prompt.
      if (round > 0) (made === 0 ? prefills : decodes).push(made === 0 ? (now - last) / promptTokens : now - last)
      last = now
      made++
      if (token) answer.push(token.id)
    }
  }
  const decode = timingOf(decodes)
  const { kvHeads, headSize, layers } = config
  const cached = promptTokens + tokens / 2
  const bytes = model.weightBytes + 2 * layers * cached * kvHeads * headSize * (model.dtype === 'f16' ? 2 : 4)
  const { cost } = gpu.plan((step) =>
    step.withoutGradients(() => void model.forward(step, step.filled('u32', [1, 1], 0))),
  )
  return {
    ...{ made: answer, decode, bytes, prefill: timingOf(prefills), load: loadavg()[0] },
    r: bytes / 1e6 / ceilings.copyGBs / decode.median,
    hostShare: (cost.dispatches * ceilings.replayMicroseconds) / 1000 / decode.median,
  }
}

/** The rates as a table. */
export function generationTable(rates: readonly GenerationRates[]): string {
  return table(
    ['storage', 'ms a token', 'quartiles', 'tokens/s', 'MB a token', 'R', 'host share', 'prompt tokens/s', 'load'],
    rates.map(({ storage, decode, bytes, r, hostShare, prefill, load }) => [
      ...[storage, decode.median.toFixed(1), decode.quartiles.map((ms) => ms.toFixed(1)).join('-')],
      ...[(1000 / decode.median).toFixed(1), (bytes / 1e6).toFixed(0), r.toFixed(3), hostShare.toFixed(3)],
      ...[(1000 / prefill.median).toFixed(0), load.toFixed(1)],
    ]),
  )
}

/** llama.cpp's rates as a table, with its time over ours in the storage that is nearest to the file's 5 bits and in f16. */
export function llamaTable(llama: readonly LlamaRates[], generation: readonly GenerationRates[]): string {
  const over = (ms: number, of: 'decode' | 'prefill') =>
    generation.map((ours) => (ms / ours[of].median).toFixed(2)).join(', ')
  const storages = generation.map(({ storage }) => storage).join(', ')
  return table(
    [
      'llama.cpp, Q4_1',
      'ms a token',
      'tokens/s',
      `over ${storages}`,
      'prompt tokens/s',
      'over',
      'tokens agree',
      'load',
    ],
    llama.map(({ device, version, decode, prefill, agreed, load }) => [
      ...[
        `${version}, ${device === 'cpu' ? 'processor: another device' : 'Vulkan, same adapter'}`,
        decode.median.toFixed(1),
      ],
      ...[(1000 / decode.median).toFixed(1), over(decode.median, 'decode'), (1000 / prefill.median).toFixed(0)],
      ...[over(prefill.median, 'prefill'), String(agreed), load.toFixed(1)],
    ]),
  )
}
