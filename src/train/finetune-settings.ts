import { z } from 'zod'
import type { FloatType } from '../core/dtype.ts'
import { type DecoderConfig, type LinearName, linearShapes } from '../formats/model-config.ts'
import type { WeightStorage } from '../models/decoder-weights.ts'
import type { ScheduleName } from './schedule.ts'

/** Every number that a fine-tuning run can be tuned by. A run that goes on must have the same. */
export interface FinetuneSettings {
  /** Rank of the low-rank updates. */
  readonly rank: number
  /** The updates are scaled by alpha / rank. */
  readonly alpha: number
  /** Linear layers to update, by the ends of their names (`q_proj`); all unless told. */
  readonly targets: readonly string[]
  /** How the base is held. */
  readonly base: WeightStorage
  /** Of activations and their gradients; parameters and moments are f32 in any case. A base in f16 has them in f16. */
  readonly precision: FloatType
  readonly lr: number
  readonly schedule: ScheduleName
  /** Share of the steps over which the rate rises. */
  readonly warmup: number
  /** Rows a batch. */
  readonly batch: number
  /** Batches a step. */
  readonly accumulate: number
  readonly epochs: number
  /** Steps, instead of epochs; 0 means epochs. */
  readonly steps: number
  /** Most tokens of a row. */
  readonly length: number
  readonly packing: boolean
  readonly seed: number
  /** Share of the records kept for evaluation. */
  readonly evalShare: number
  /** Steps between evaluations. */
  readonly evalEvery: number
  /** Evaluations without improvement after which the run stops; 0 never stops it. */
  readonly patience: number
  /** Steps between checkpoints. */
  readonly checkpointEvery: number
  /** Newest checkpoints kept, beside the best. */
  readonly keep: number
  /** Whether layers are computed again in the backward pass, to save memory. */
  readonly gradientCheckpoint: boolean
  readonly decay: number
  readonly clip: number
  /** Bits of the optimiser's moments. */
  readonly stateBits: 8 | 32
}

/** What a run has unless told. */
export const finetuneDefaults: FinetuneSettings = {
  ...{ rank: 16, alpha: 32, targets: [], base: 'f32', precision: 'f32', lr: 2e-4, schedule: 'cosine', warmup: 0.03 },
  ...{ batch: 4, accumulate: 1, epochs: 1, steps: 0, length: 512, packing: true, seed: 42 },
  ...{ evalShare: 0.05, evalEvery: 50, patience: 0, checkpointEvery: 50, keep: 2 },
  ...{ gradientCheckpoint: false, decay: 0, clip: 1, stateBits: 32 },
}

const whole = z.number().int().positive()
const share = z.number().min(0).lt(1)
const checks = z.object({
  ...{ rank: whole, alpha: z.number().positive(), lr: z.number().positive(), warmup: share },
  ...{ batch: whole, accumulate: whole, epochs: z.number().positive(), steps: z.number().int().nonnegative() },
  ...{ length: whole, seed: z.number().int().nonnegative(), evalShare: share, evalEvery: whole },
  ...{ patience: z.number().int().nonnegative(), checkpointEvery: whole, keep: whole },
  ...{ decay: z.number().nonnegative(), clip: z.number().nonnegative() },
})

/**
 * Checks settings against each other and the model.
 * @returns the linear layers to update.
 * @throws RangeError naming the first that is out of range.
 */
export function checkFinetune(settings: FinetuneSettings, config: DecoderConfig): LinearName[] {
  const result = checks.safeParse(settings)
  if (!result.success) {
    const [issue] = result.error.issues
    throw new RangeError(`Cannot finetune with ${issue.path.join('.')}: ${issue.message}`)
  }
  if (settings.length > config.contextLength)
    throw new RangeError(
      `Cannot finetune on rows of ${settings.length} tokens: the model's context is ${config.contextLength}; give --length ${config.contextLength} or less`,
    )
  const names = Object.keys(linearShapes(config)) as LinearName[]
  const kinds = names.map((name) => name.slice(name.indexOf('.') + 1))
  for (const target of settings.targets)
    if (!kinds.includes(target))
      throw new RangeError(`Cannot finetune ${target}: linear layers are ${kinds.join(', ')}`)
  return settings.targets.length === 0 ? names : names.filter((_, i) => settings.targets.includes(kinds[i]))
}
