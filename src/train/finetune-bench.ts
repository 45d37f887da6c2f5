import { z } from 'zod'
import { Adapter } from '../adapters/adapter.ts'
import { GpuError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import type { PackedBatch } from '../data/packed-batch.ts'
import type { LinearName } from '../formats/model-config.ts'
import { type LoraModule, writePeft } from '../formats/peft.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import { Decoder, type LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { BaseModel } from './base-model.ts'
import type { Checkpoint } from './checkpoint-store.ts'
import type { EarlyStopState } from './early-stop.ts'
import { FinetuneData, uploadPacked } from './finetune-data.ts'
import { checkFinetune, type FinetuneSettings } from './finetune-settings.ts'
import { Optimiser } from './optimiser.ts'
import type { CachedRows } from './row-cache.ts'

/** Everything of a run that lives until it ends. */
export class FinetuneBench implements Disposable {
  readonly steps: number
  readonly data: FinetuneData
  readonly adapter: Adapter
  readonly optimiser: Optimiser
  readonly #model: Decoder
  readonly #updates: LinearUpdates
  readonly #settings: FinetuneSettings

  constructor(gpu: Gpu, base: BaseModel, rows: CachedRows, settings: FinetuneSettings, saved?: SavedFinetune) {
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
    const { ids, targets, weights, ranges } = uploadPacked(step, batch)
    const options = { updates: this.#updates, checkpoint: this.#settings.gradientCheckpoint, ranges }
    return weightedMean(step, this.#model.losses(step, this.#model.hidden(step, ids, options), targets), weights, total)
  }

  /** Forward and backward over a batch whose rows are full: what takes most memory. @returns its loss, f32 [1]. */
  fullPass(step: Step): Tensor<'f32'> {
    const { batch: rows, length: tokens } = this.#settings
    const size = rows * tokens
    const batch: PackedBatch = {
      ...{ rows, tokens, total: size, used: size },
      ids: new Uint32Array(size),
      targets: new Uint32Array(size),
      weights: new Float32Array(size).fill(1),
      starts: new Uint32Array(size),
    }
    const loss = this.loss(step, batch, size)
    step.backward(loss)
    return loss
  }

  /** Mean loss of the learned tokens kept for evaluation, in nats. @throws GpuError when it is not finite. */
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
