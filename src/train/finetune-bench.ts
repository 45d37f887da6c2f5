import { z } from 'zod'
import { Adapter } from '../adapters/adapter.ts'
import { GpuError, ResourceError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import type { PackedBatch } from '../data/packed-batch.ts'
import { type LinearName, linearShapes } from '../formats/model-config.ts'
import { type LoraModule, writePeft } from '../formats/peft.ts'
import { fuseModules } from '../formats/peft-fused.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { mul } from '../kernels/elementwise.ts'
import type { LoraPair } from '../kernels/lora.ts'
import { rowSum, sum } from '../kernels/reduce.ts'
import { Decoder, type LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { BaseModel } from './base-model.ts'
import type { Checkpoint } from './checkpoint-store.ts'
import type { EarlyStopState } from './early-stop.ts'
import { emptyPacked, FinetuneData, fullBatch, type PackedBatchTensors, writePacked } from './finetune-data.ts'
import type { FinetuneOptions } from './finetune-inputs.ts'
import { checkFinetune, type FinetuneSettings } from './finetune-settings.ts'
import { halfPair, lossFactor, scaleGradient } from './loss-scale.ts'
import { Optimiser } from './optimiser.ts'
import type { Replays } from './replays.ts'
import type { CachedRows } from './row-cache.ts'

/** Everything of a run that lives until it ends: base, adapter, optimiser and data. */
export class FinetuneBench implements Disposable {
  readonly steps: number
  readonly data: FinetuneData
  readonly adapter: Adapter
  readonly optimiser: Optimiser
  readonly #gpu: Gpu
  readonly #model: Decoder
  readonly #settings: FinetuneSettings
  readonly #inputs: Scope
  /** Where batches are written, by their shapes. */
  readonly #rooms = new Map<string, PackedBatchTensors>()
  #batch: PackedBatchTensors | undefined

  private constructor(gpu: Gpu, model: Decoder, data: FinetuneData, settings: FinetuneSettings, saved?: SavedFinetune) {
    this.#gpu = gpu
    this.#model = model
    this.#settings = settings
    this.data = data
    this.steps = settings.steps > 0 ? settings.steps : data.stepsOf(settings.epochs)
    const targets = checkFinetune(settings, model.config)
    this.adapter = saved
      ? Adapter.load(gpu, 'finetune', model.config, saved.part('adapter/'))
      : Adapter.create(gpu, 'finetune', model.config, ranksOf(model, targets, settings), new Random(settings.seed + 1))
    const { decay, clip, stateBits } = settings
    this.optimiser = new Optimiser(gpu, this.adapter.parameters, { decay, clip, stateBits })
    if (saved) this.optimiser.load(saved.part('optimiser/'))
    this.#inputs = gpu.scope('inputs')
  }

  /** Reads the base onto the GPU, and puts a new adapter on it or the one that was saved. */
  static async open(options: FinetuneOptions, base: BaseModel, rows: CachedRows, saved?: SavedFinetune) {
    const { gpu, settings, onProgress, signal } = options
    const data = new FinetuneData(rows, settings)
    const load = { storage: settings.base, dtype: settings.precision, onProgress, ...(signal && { signal }) }
    const half = [['--base', settings.base] as const, ['--precision', settings.precision] as const]
    for (const [option, type] of half)
      if (type === 'f16' && !gpu.capabilities.f16)
        throw new ResourceError(`Cannot finetune in f16 on ${gpu.name}: it computes in f32 alone; give ${option} f32`)
    const model = await Decoder.open(gpu, base.weights, load)
    return new FinetuneBench(gpu, model, data, settings, saved)
  }

  /**
   * Writes the batch that {@link loss} reads from now on.
   * @param total learned tokens of the whole step.
   * @returns its shape.
   */
  feed(batch: PackedBatch, total: number): string {
    const shape = `${batch.rows}×${batch.tokens}`
    const room = this.#rooms.get(shape) ?? emptyPacked(this.#inputs, batch.rows, batch.tokens)
    this.#rooms.set(shape, room)
    writePacked(this.#gpu, room, batch, total)
    this.#batch = room
    return shape
  }

  /** Sum of the losses of a batch's tokens by their weights, f32 [1], and of each row, f32 (B); of the batch fed last unless told. */
  loss(step: Step, { ids, targets, weights, ranges }: PackedBatchTensors = this.#batch!) {
    const { batch, length, accumulate, gradientCheckpoint } = this.#settings
    const factor = this.#model.dtype === 'f16' ? lossFactor(batch * length * accumulate) : 1
    const options = { updates: this.#updates(step, factor), checkpoint: gradientCheckpoint, ranges }
    const losses = this.#model.losses(step, this.#model.hidden(step, ids, options), targets)
    const weighed = mul(step, factor === 1 ? losses : scaleGradient(step, losses, factor), weights)
    return { total: sum(step, weighed), rows: step.withoutGradients(() => rowSum(step, weighed)) }
  }

  /** The adapter as the model's layers take it. */
  #updates(step: Step, factor: number): LinearUpdates {
    const { alpha, rank } = this.#settings
    const { config, dtype } = this.#model
    const pairs = new Map<string, LoraPair>()
    for (let layer = 0; layer < config.layers; layer++)
      for (const linear of Object.keys(linearShapes(config)) as LinearName[]) {
        const pair = this.adapter.pairFor(layer, linear)
        const scaled = pair && { ...pair, scale: alpha / rank }
        if (scaled) pairs.set(`${layer}.${linear}`, dtype === 'f16' ? halfPair(step, scaled, factor) : scaled)
      }
    return { pairFor: (layer, linear) => pairs.get(`${layer}.${linear}`) }
  }

  /** The loss of a batch whose rows are full: what takes most memory. */
  largest(step: Step): Tensor<'f32'> {
    const full = fullBatch(this.#settings)
    const tensors = emptyPacked(step, full.rows, full.tokens)
    writePacked(this.#gpu, tensors, full, full.total)
    return this.loss(step, tensors).total
  }

  /**
   * Mean loss of the learned tokens kept for evaluation, in nats.
   * @param replays of the training steps, whose memory it shares.
   * @throws GpuError when it is not finite.
   */
  async evaluate(replays: Replays): Promise<number> {
    let nats = 0
    let learned = 0
    for await (const batch of this.data.evaluation()) {
      const { sum } = await replays.run(`evaluate ${this.feed(batch, 1)}`, 'evaluate', (step) => ({
        sum: step.withoutGradients(() => this.loss(step).total),
      }))
      nats += sum[0]
      learned += batch.total
    }
    if (!Number.isFinite(nats))
      throw new GpuError(
        `The loss of the rows kept for evaluation is ${nats} after step ${this.optimiser.steps}: lower the learning rate, ` +
          'or look at these rows',
      )
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
    return writePeft(fuseModules(modules, this.#model.config), { ranks: 'native', layers, baseModel })
  }

  [Symbol.dispose](): void {
    this.#inputs[Symbol.dispose]()
    this.optimiser[Symbol.dispose]()
    this.adapter[Symbol.dispose]()
    this.#model[Symbol.dispose]()
  }
}

function ranksOf({ config }: Decoder, targets: readonly LinearName[], { rank }: FinetuneSettings) {
  const layers = Array.from({ length: config.layers }, (_, layer) => layer)
  return Object.fromEntries(layers.flatMap((layer) => targets.map((name) => [`${layer}.${name}`, rank])))
}

/** A checkpoint of a run, taken apart. */
export interface SavedFinetune {
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

/** @throws SyntaxError when the checkpoint is not one of a fine-tuning run. */
export function takeApart({ step, content, file }: Checkpoint): SavedFinetune {
  const { tensors, metadata } = parseSafetensors(content)
  const state = stateSchema.safeParse(JSON.parse(metadata.state ?? 'null'))
  if (!state.success) throw new SyntaxError(`Cannot resume from ${file}: ${z.prettifyError(state.error)}`)
  const part = (prefix: string) =>
    new Map([...tensors].flatMap(([name, t]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), t]] : [])))
  return { step, ...state.data, part }
}
