import { join } from 'node:path'
import { z } from 'zod'
import { Adapter } from '../adapters/adapter.ts'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { Random } from '../core/random.ts'
import type { PackedBatch } from '../data/packed-batch.ts'
import { ChatTemplate } from '../formats/chat.ts'
import type { LinearName } from '../formats/model-config.ts'
import { type LoraModule, writePeft } from '../formats/peft.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { exists, readJson, removeFolder, sha256, writeFileAtomic, writeJson } from '../host/files.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import { Decoder, type LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type BaseModel, readBaseModel } from './base-model.ts'
import { type Checkpoint, CheckpointStore } from './checkpoint-store.ts'
import { EarlyStop, type EarlyStopState } from './early-stop.ts'
import { FinetuneData, type StepData, uploadPacked } from './finetune-data.ts'
import { checkFinetune, type FinetuneSettings } from './finetune-settings.ts'
import { type StepRecord, trainLoop } from './loop.ts'
import { Optimiser } from './optimiser.ts'
import { type CachedRows, cacheRows } from './row-cache.ts'
import { schedules } from './schedule.ts'
import { TrainLog } from './train-log.ts'

/** What a fine-tuning run works with. */
export interface FinetuneOptions {
  readonly gpu: Gpu
  /** Folder or GGUF file of the base. */
  readonly model: string
  /** JSONL, Parquet or text. */
  readonly data: string
  /** Where the adapter, the log and the checkpoints go. */
  readonly out: string
  readonly settings: FinetuneSettings
  /** A Jinja template, where the model has none or another is wanted. */
  readonly chatTemplate?: string
  /** Deletes what an earlier run left in `out` and starts over. */
  readonly fresh?: boolean
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** What a fine-tuning run reports. */
export interface FinetuneResult {
  /** Steps that were run, those before an interruption too. */
  readonly steps: number
  /** The step whose adapter was written: the best evaluation's, or the last. */
  readonly written: number
  /** Loss of the first and the last step. */
  readonly first: number
  readonly last: number
  /** Loss on the rows kept for evaluation, of the adapter that was written. */
  readonly evaluation?: number
  readonly parameters: number
  readonly adapter: string
}

/** What a run would take: see {@link planFinetune}. */
export interface FinetunePlan {
  readonly steps: number
  readonly rows: { readonly train: number; readonly eval: number }
  /** Tokens of the data, tokens among them that are learned, and tokens cut off at the length. */
  readonly tokens: number
  readonly learned: number
  readonly cut: number
  readonly parameters: number
  /** Bytes of weights, adapter and optimiser, and of one pass beside them. */
  readonly residentBytes: number
  readonly passBytes: number
  /** Of one step with full rows, measured. */
  readonly secondsPerStep: number
  readonly seconds: number
}

/** Everything of a run that lives until it ends. */
class Bench implements Disposable {
  readonly steps: number
  readonly data: FinetuneData
  readonly adapter: Adapter
  readonly optimiser: Optimiser
  readonly #model: Decoder
  readonly #updates: LinearUpdates
  readonly #settings: FinetuneSettings

  constructor(gpu: Gpu, base: BaseModel, rows: CachedRows, settings: FinetuneSettings, saved?: Saved) {
    this.#settings = settings
    this.data = new FinetuneData(rows, settings)
    this.steps = settings.steps > 0 ? settings.steps : this.data.stepsOf(settings.epochs)
    const targets = checkFinetune(settings, base.config)
    this.#model = Decoder.load(gpu, base.config, base.tensors, settings.base)
    this.adapter = saved
      ? Adapter.load(gpu, 'finetune', base.config, saved.part('adapter/'))
      : Adapter.create(gpu, 'finetune', base.config, ranksOf(base, targets, settings), new Random(settings.seed + 1))
    const { decay, clip, stateBits } = settings
    this.optimiser = new Optimiser(gpu, this.adapter.parameters, { decay, clip, stateBits })
    if (saved) this.optimiser.load(saved.part('optimiser/'))
    const scale = settings.alpha / settings.rank
    this.#updates = {
      pairFor: (layer, linear) => {
        const pair = this.adapter.pairFor(layer, linear)
        return pair && { ...pair, scale }
      },
    }
  }

  /** Sum of the losses of a batch's learned tokens over `total`, f32 [1]. */
  loss(step: Step, batch: PackedBatch, total: number): Tensor<'f32'> {
    const { ids, targets, weights, starts } = uploadPacked(step, batch)
    const options = { updates: this.#updates, checkpoint: this.#settings.gradientCheckpoint, starts }
    return weightedMean(step, this.#model.losses(step, this.#model.hidden(step, ids, options), targets), weights, total)
  }

  /** Mean loss of the learned tokens kept for evaluation, in nats. */
  async evaluate(gpu: Gpu): Promise<number> {
    let nats = 0
    let learned = 0
    this.optimiser.setTraining(false)
    for await (const batch of this.data.evaluation()) {
      using step = gpu.step({ label: 'evaluate' })
      nats += await step.readNumber(this.loss(step, batch, 1))
      learned += batch.total
    }
    this.optimiser.setTraining(true)
    return nats / learned
  }

  /** The adapter as PEFT reads it, its scale folded into B. */
  async peft(tensors: ReadonlyMap<string, CpuTensor>, layers: number, baseModel: string) {
    const scale = this.#settings.alpha / this.#settings.rank
    const modules: LoraModule[] = []
    for (const [name, a] of tensors) {
      const module = /^base_model\.model\.(.+)\.lora_A\.weight$/.exec(name)?.[1]
      const b = tensors.get(name.replace('lora_A', 'lora_B'))
      if (module && b) modules.push({ module, a, b, rank: a.shape[0], scale })
    }
    return writePeft(modules, { ranks: 'native', layers, baseModel })
  }

  [Symbol.dispose](): void {
    this.optimiser[Symbol.dispose]()
    this.adapter[Symbol.dispose]()
    this.#model[Symbol.dispose]()
  }
}

function ranksOf({ config }: BaseModel, targets: readonly LinearName[], { rank }: FinetuneSettings) {
  const layers = Array.from({ length: config.layers }, (_, layer) => layer)
  return Object.fromEntries(layers.flatMap((layer) => targets.map((name) => [`${layer}.${name}`, rank])))
}

/** A checkpoint of a run, taken apart. */
interface Saved {
  readonly step: number
  readonly stopper: EarlyStopState
  readonly first: number
  readonly last: number
  part(prefix: string): Map<string, CpuTensor>
}

const stateSchema = z.object({
  stopper: z.object({ best: z.number().nullable(), since: z.number() }),
  first: z.number(),
  last: z.number(),
})

function takeApart({ step, content, file }: Checkpoint): Saved {
  const { tensors, metadata } = parseSafetensors(content)
  const state = stateSchema.safeParse(JSON.parse(metadata.state ?? 'null'))
  if (!state.success) throw new SyntaxError(`Cannot resume from ${file}: ${z.prettifyError(state.error)}`)
  const part = (prefix: string) =>
    new Map([...tensors].flatMap(([name, t]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), t]] : [])))
  return { step, ...state.data, part }
}

async function openBase({ model, chatTemplate }: FinetuneOptions): Promise<BaseModel> {
  const base = await readBaseModel(model)
  if (chatTemplate === undefined) return base
  const chat = new ChatTemplate(chatTemplate, base.chatSettings)
  return { ...base, chat, encodingHash: sha256(`${base.encodingHash} ${sha256(chatTemplate)}`) }
}

function openRowsOf(options: FinetuneOptions, base: BaseModel, now: Date): Promise<CachedRows> {
  const { data, out, settings, onProgress } = options
  const { tokenizer, chat, encodingHash, config } = base
  return cacheRows({
    ...{ data, folder: join(out, 'data'), encodingHash, onProgress, tokenizer, now },
    ...{ eosId: config.eosId, length: settings.length + 1, ...(chat && { chat }) },
  })
}

/**
 * What a run would take: rows, steps, memory by planning, time by running one pass with full rows. Of `out` only the
 * encoded data is written.
 */
export async function planFinetune(options: FinetuneOptions): Promise<FinetunePlan> {
  const { gpu, settings } = options
  const base = await openBase(options)
  checkFinetune(settings, base.config)
  await using rows = await openRowsOf(options, base, startOfDay())
  using bench = new Bench(gpu, base, rows, settings)
  const size = settings.batch * settings.length
  const full: PackedBatch = {
    ...{ rows: settings.batch, tokens: settings.length, total: size, used: size },
    ids: new Uint32Array(size),
    targets: new Uint32Array(size),
    weights: new Float32Array(size).fill(1),
    starts: new Uint32Array(size),
  }
  const residentBytes = gpu.memory.liveBytes
  const pass = (step: Step) => {
    const loss = bench.loss(step, full, size)
    step.backward(loss)
    return loss
  }
  const { peakBytes } = gpu.expectRoom('finetune', pass)
  let seconds = 0
  // The first pass compiles the kernels; the second is the measure.
  for (let round = 0; round < 2; round++) {
    const started = performance.now()
    using step = gpu.step({ label: 'plan' })
    await step.readNumber(pass(step))
    seconds = (performance.now() - started) / 1000
  }
  const secondsPerStep = seconds * settings.accumulate
  const { summary } = rows
  return {
    ...{ steps: bench.steps, rows: bench.data.sizes },
    ...{ tokens: summary.ids - summary.rows, learned: summary.learned, cut: summary.cut },
    ...{ parameters: bench.adapter.parameterCount, residentBytes, passBytes: peakBytes },
    ...{ secondsPerStep, seconds: secondsPerStep * bench.steps },
  }
}

/** Midnight: what a chat template's clock shows, so that a day's runs encode alike. */
function startOfDay(): Date {
  return new Date(new Date().toISOString().slice(0, 10))
}

const runSchema = z.object({ started: z.string(), settings: z.record(z.string(), z.unknown()) })

/**
 * Trains a low-rank adapter for a model on a data file, and writes it as PEFT reads it: adapter_model.safetensors and
 * adapter_config.json, beside log.jsonl and checkpoints. A run that was stopped goes on where it was, to the same result.
 * @throws RangeError when `out` holds a run with other settings, data or base; SyntaxError when a file is at fault.
 * @throws InterruptedError when the signal is aborted, after a checkpoint of what was done.
 */
export async function finetune(options: FinetuneOptions): Promise<FinetuneResult> {
  const { gpu, out, settings, signal, onProgress } = options
  if (options.fresh)
    for (const name of ['finetune.json', 'log.jsonl', 'checkpoints', 'data', ...adapterFiles])
      await removeFolder(join(out, name))
  const base = await openBase(options)
  checkFinetune(settings, base.config)
  const record = join(out, 'finetune.json')
  const before = exists(record) ? runSchema.parse(await readJson(record)) : undefined
  const now = before ? new Date(before.started) : startOfDay()
  await using rows = await openRowsOf(options, base, now)
  const asked = { ...settings, model: base.configHash, encoding: base.encodingHash, data: rows.summary.dataHash }
  if (before) expectSame(out, before.settings, asked)
  else await writeJson(record, { started: now.toISOString(), settings: asked })

  const store = new CheckpointStore(join(out, 'checkpoints'), { keep: settings.keep })
  const found = await store.latest()
  const saved = found && takeApart(found)
  const log = await TrainLog.resume(join(out, 'log.jsonl'), saved?.step ?? 0)
  using bench = new Bench(gpu, base, rows, settings, saved)
  const { steps } = bench
  const stopper = new EarlyStop(settings.patience, saved?.stopper)
  const schedule = schedules[settings.schedule]({
    ...{ lr: settings.lr, steps, warmup: Math.ceil(settings.warmup * steps) },
  })
  let done = saved?.step ?? 0
  let savedAt = done
  let [first, last] = [saved?.first ?? Number.NaN, saved?.last ?? Number.NaN]
  let current: StepData
  let started = performance.now()
  let evaluated: Readonly<Record<string, string>> = {}

  const save = async (score?: number) => {
    const tensors = new Map<string, CpuTensor>()
    for (const [name, tensor] of await bench.adapter.toTensors('F32')) tensors.set(`adapter/${name}`, tensor)
    for (const [name, tensor] of await bench.optimiser.save()) tensors.set(`optimiser/${name}`, tensor)
    const state = JSON.stringify({ stopper: stopper.save(), first, last })
    await store.save(done, writeSafetensors(tensors, { state }), score)
    savedAt = done
  }
  const after = async (step: StepRecord) => {
    done = step.step + 1
    if (step.step === 0) first = step.loss
    last = step.loss
    const evaluates = bench.data.sizes.eval > 0 && (done % settings.evalEvery === 0 || done === steps)
    const evaluation = evaluates ? await bench.evaluate(gpu) : undefined
    if (evaluation !== undefined) evaluated = { 'held out': evaluation.toFixed(4) }
    await log.add({ ...step, tokens: current.used, ...(evaluates && { evaluation }) })
    const stop = evaluation !== undefined && stopper.add(evaluation)
    if (evaluates || done % settings.checkpointEvery === 0 || done === steps) await save(evaluation)
    return stop ? 'stop' : undefined
  }
  if (!stopper.stopped)
    try {
      await trainLoop({
        ...{ task: 'finetune', gpu, from: done, steps, lr: schedule, after, onProgress, ...(signal && { signal }) },
        accumulate: { parts: settings.accumulate, parameters: [...bench.adapter.parameters.values()] },
        async prepare(index) {
          current = await bench.data.step(index)
          started = performance.now()
        },
        loss(step, _, part) {
          const total = bench.loss(step, current.parts[part], current.total)
          return { total, terms: { loss: total } }
        },
        update: (step, gradients, index) => bench.optimiser.update(step, gradients, schedule(index)),
        describe: (index) => bench.data.places(index),
        figures: () => ({
          ...evaluated,
          'tokens/s': ((1000 * current.used) / (performance.now() - started)).toFixed(0),
          memory: `${Math.ceil(gpu.memory.peakBytes / 2 ** 20)} MiB`,
        }),
      })
    } catch (error) {
      if (error instanceof InterruptedError && done > savedAt) await save()
      throw error
    }

  const best = await store.best()
  const chosen = best ? takeApart(best).part('adapter/') : await bench.adapter.toTensors('F32')
  const { tensors, config } = await bench.peft(chosen, base.config.layers, options.model)
  await writeFileAtomic(join(out, adapterFiles[0]), writeSafetensors(tensors, { format: 'pt' }))
  await writeFileAtomic(join(out, adapterFiles[1]), config)
  const { parameterCount } = bench.adapter
  return {
    ...{ steps: done, written: best?.step ?? done, first, last, parameters: parameterCount },
    ...(best?.score === undefined ? {} : { evaluation: best.score }),
    adapter: join(out, adapterFiles[0]),
  }
}

const adapterFiles = ['adapter_model.safetensors', 'adapter_config.json'] as const

/** @throws RangeError naming the first setting that differs from those that the run in `out` began with. */
function expectSame(out: string, before: Readonly<Record<string, unknown>>, now: Readonly<Record<string, unknown>>) {
  for (const [name, value] of Object.entries(now))
    if (JSON.stringify(before[name]) !== JSON.stringify(value))
      throw new RangeError(
        `Cannot go on with the run in ${out}: ${name} was ${JSON.stringify(before[name])} and is now ` +
          `${JSON.stringify(value)}. Give what it began with, another folder, or --fresh`,
      )
}
