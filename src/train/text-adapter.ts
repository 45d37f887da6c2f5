import { Adapter } from '../adapters/adapter.ts'
import { silent } from '../core/progress.ts'
import { defaultSeed, Random } from '../core/random.ts'
import { linearShapes } from '../formats/model-config.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder } from '../models/decoder.ts'
import { batchOf, type Row, uploadBatch } from './batch.ts'
import { trainLoop } from './loop.ts'
import { Optimiser } from './optimiser.ts'
import { cosineSchedule } from './schedule.ts'

/** How an adapter learns a text. */
export interface TextTraining {
  readonly text: string
  /** Name of the adapter. */
  readonly name: string
  /** Rank of the update of every linear layer; 8 unless told. */
  readonly rank?: number
  /** 60 unless told. */
  readonly steps?: number
  /** Highest learning rate; 0.002 unless told. It falls along half a cosine. */
  readonly lr?: number
  /** Of the adapter's beginning and of the order of the text; 42 unless told. */
  readonly seed?: number
  /** Rows a step; 4 unless told, and one where the whole text fits a row. */
  readonly rows?: number
  /** Most tokens of a row; 128 unless told, and never more than the context. */
  readonly tokens?: number
  readonly onStep?: (step: TextStep) => void
  /** Stops between two steps. */
  readonly signal?: AbortSignal
}

/** What one step did. */
export interface TextStep {
  /** Counted from 1. */
  readonly step: number
  readonly steps: number
  /** Mean over the tokens of the step, in nats, before its update. */
  readonly loss: number
  readonly tokensPerSecond: number
}

/** Fewest tokens that are a text to learn from. */
const fewestTokens = 4

/**
 * A low-rank adapter that has learned to continue a text, for the backbone as it is held: f32, NF4 or int8. The backbone
 * stays as it is. The same seed gives the same adapter on the same GPU.
 * @throws RangeError when a setting is out of range, or the text too short or of characters that the vocabulary lacks.
 * @throws ResourceError before the first step when it would not fit the memory budget.
 * @throws GpuError when the loss is not finite; InterruptedError when the signal is aborted. No memory is left behind.
 */
export async function trainOnText(
  decoder: Decoder,
  tokenizer: Tokenizer,
  { text, name, rank = 8, steps = 60, lr = 0.002, seed = defaultSeed, ...options }: TextTraining,
): Promise<Adapter> {
  const { config, gpu } = decoder
  if (!Number.isInteger(rank) || rank < 1 || rank > config.width)
    throw new RangeError(`Cannot train ${name}: the rank must be from 1 to ${config.width}, got ${rank}`)
  if (!Number.isInteger(steps) || steps < 1) throw new RangeError(`Cannot train ${name} for ${steps} steps`)
  if (!(lr > 0 && lr < 1)) throw new RangeError(`Cannot train ${name} at a learning rate of ${lr}: want one below 1`)
  const ids = [config.eosId, ...tokenizer.encode(text), config.eosId]
  if (ids.length - 2 < fewestTokens)
    throw new RangeError(
      `Cannot train ${name}: the text has ${ids.length - 2} tokens; give it ${fewestTokens} or more, a page is better`,
    )
  const draw = windowsOf(ids, Math.min(options.tokens ?? 128, config.contextLength), options.rows ?? 4)
  const ranks: Record<string, number> = {}
  for (let layer = 0; layer < config.layers; layer++)
    for (const linear of Object.keys(linearShapes(config))) ranks[`${layer}.${linear}`] = rank
  const random = new Random(seed)
  const adapter = Adapter.create(gpu, name, config, ranks, random)
  try {
    using optimiser = new Optimiser(gpu, adapter.parameters)
    const rate = cosineSchedule({ lr, steps, warmup: Math.ceil(steps / 20) })
    let batch = batchOf(draw(random))
    let started = performance.now()
    await trainLoop({
      ...{ task: `train ${name}`, gpu, steps, lr: rate, onProgress: silent, signal: options.signal },
      async prepare(index) {
        if (index > 0) batch = batchOf(draw(random))
        started = performance.now()
      },
      loss(step) {
        const { ids, targets, weights } = uploadBatch(step, batch)
        const losses = decoder.losses(step, decoder.hidden(step, ids, { updates: adapter }), targets)
        const total = weightedMean(step, losses, weights, batch.total)
        return { total, terms: { loss: total } }
      },
      update: (step, gradients, index) => optimiser.update(step, gradients, rate(index)),
      after({ step, loss }) {
        const seconds = (performance.now() - started) / 1000
        options.onStep?.({ step: step + 1, steps, loss, tokensPerSecond: (batch.rows * batch.tokens) / seconds })
      },
    })
    return adapter
  } catch (error) {
    adapter[Symbol.dispose]()
    throw error
  }
}

/**
 * Draws rows of at most `tokens` inputs out of a sequence that an end token begins and ends. Each row begins with that
 * token, as a prompt does; what follows it in the middle of the text is no prediction to learn.
 */
function windowsOf(ids: readonly number[], tokens: number, rows: number): (random: Random) => Row[] {
  const length = Math.min(tokens, ids.length - 1)
  const starts = ids.length - length
  const row = (start: number): Row => ({
    ids: [ids[0], ...ids.slice(start + 1, start + length + 1)],
    weights: Array.from({ length }, (_, t) => (t === 0 && start > 0 ? 0 : 1)),
  })
  return (random) => Array.from({ length: starts === 1 ? 1 : rows }, () => row(random.integer(starts)))
}
