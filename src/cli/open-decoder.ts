import { Option } from 'commander'
import type { FloatType } from '../core/dtype.ts'
import { Decoder } from '../models/decoder.ts'
import { type WeightStorage, weightStorages } from '../models/decoder-weights.ts'
import type { OpenModel } from '../models/open-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Output } from './output.ts'

/** What {@link storageOption} and {@link precisionOption} bring. */
export interface WeightOptions {
  readonly storage: WeightStorage
  readonly precision?: FloatType
}

/** `--storage` of a command. */
export function storageOption(usual: WeightStorage): Option {
  return new Option('--storage <kind>', 'how the weights are held').choices(weightStorages).default(usual)
}

/** `--precision` of a command. */
export function precisionOption(): Option {
  const usual = 'f16 with --storage f16, but for families that pass its range, and f32 else'
  return new Option('--precision <type>', `of activations; ${usual}`).choices(['f32', 'f16'])
}

/** Puts a model on the GPU; in f32, and says so, where f16 was asked of an adapter that has none. */
export async function openDecoder(
  output: Output,
  gpu: Gpu,
  files: OpenModel,
  options: WeightOptions,
  signal: AbortSignal,
): Promise<Decoder> {
  const withoutHalf = <T extends string>(type: T) => (type === 'f16' && !gpu.capabilities.f16 ? 'f32' : type)
  const storage = withoutHalf(options.storage)
  const dtype = options.precision && withoutHalf(options.precision)
  if (storage !== options.storage || dtype !== options.precision)
    output.say('This adapter has no f16: f32 takes its place.')
  return await Decoder.open(gpu, files.weights, { storage, dtype, onProgress: output.onProgress, signal })
}
