import type { FloatType } from '../core/dtype.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import { type Shape, sizeOf } from '../core/shape.ts'
import { quantizeInt8 } from '../formats/int8.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { quantizeNf4 } from '../formats/nf4.ts'
import { type RopeFrequencies, ropeFrequencies } from '../formats/rope-scaling.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { type Int8Weight, uploadInt8 } from '../kernels/int8.ts'
import { type Nf4Weight, uploadNf4 } from '../kernels/nf4.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** How the linear layers of a decoder are held. Norms, biases and embedding are never quantised. */
export type WeightStorage = FloatType | 'nf4' | 'nf4-double' | 'int8'

/** How a decoder is put on the GPU. */
export interface LoadOptions {
  readonly storage?: WeightStorage
  /** Of activations and of all that is not quantised; that of the storage, or f32 with quantised layers, unless told. */
  readonly dtype?: FloatType
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

/** A decoder's weights on the GPU. */
export interface DecoderWeights {
  /** By the names of Hugging Face files. */
  readonly dense: ReadonlyMap<string, Tensor<FloatType>>
  readonly quantized: ReadonlyMap<string, Nf4Weight | Int8Weight>
}

/** The dtype of activations under `options`. */
export function activationType({ storage = 'f32', dtype }: LoadOptions): FloatType {
  return dtype ?? (storage === 'f16' ? 'f16' : 'f32')
}

/** Whether a weight is quantised where the storage asks for it: the linear layers are, all else is not. */
function isLinear(name: string): boolean {
  return name.endsWith('_proj.weight')
}

/** Puts a whole matrix or vector on the GPU. */
export function uploadWeight(
  scope: Scope,
  name: string,
  shape: Shape,
  values: Float32Array<ArrayBuffer>,
  options: LoadOptions,
): Tensor<FloatType> | Nf4Weight | Int8Weight {
  const { storage = 'f32' } = options
  if (isLinear(name)) {
    if (storage === 'int8') return uploadInt8(scope, quantizeInt8(values, shape), name)
    if (storage === 'nf4') return uploadNf4(scope, quantizeNf4(values, shape), name)
    if (storage === 'nf4-double') return uploadNf4(scope, quantizeNf4(values, shape, { doubleQuant: true }), name)
  }
  return scope.upload(activationType(options), shape, values, name)
}

/** Elements that are read and written at once. */
const pieceSize = 2 ** 22
/** Bytes that may wait in the driver before the loader waits for them. */
const waitingBytes = 64 * 2 ** 20

/**
 * Reads a model's weights onto the GPU, a window of rows at a time: on the host there is never more than one matrix that
 * is being quantised, or one window of any other.
 * @throws SyntaxError when the file is damaged, ResourceError when the GPU is too small.
 */
export async function loadWeights(
  gpu: Gpu,
  scope: Scope,
  weights: ModelWeights,
  options: LoadOptions,
): Promise<DecoderWeights> {
  const { storage = 'f32', onProgress = silent, signal } = options
  const dense = new Map<string, Tensor<FloatType>>()
  const quantized = new Map<string, Nf4Weight | Int8Weight>()
  const total = [...weights.recipes.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  let done = 0
  let waiting = 0
  const arrived = async (count: number) => {
    signal?.throwIfAborted()
    done += count
    waiting += 4 * count
    if (waiting > waitingBytes || done === total) {
      await gpu.finish()
      waiting = 0
    }
    const millions = Math.ceil(total / 1e6)
    // Rounded down until the last weight is there: a task that is done is shown as done once.
    const shown = done === total ? millions : Math.min(millions - 1, Math.floor(done / 1e6))
    onProgress({ task: 'load', done: shown, total: millions, unit: 'million weights' })
  }
  for (const [name, { shape }] of weights.recipes) {
    if (isLinear(name) && storage !== 'f32' && storage !== 'f16') {
      const weight = uploadWeight(scope, name, shape, await weights.read(name), options)
      quantized.set(name, weight as Nf4Weight | Int8Weight)
      await arrived(sizeOf(shape))
      continue
    }
    const tensor = scope.empty(activationType(options), shape, name)
    dense.set(name, tensor)
    const columns = shape.length === 1 ? 1 : shape[1]
    // Windows of rows begin at whole words whatever the dtype.
    const each = 2 * Math.max(1, Math.floor(pieceSize / columns / 2))
    for (let row = 0; row < shape[0]; row += each) {
      const values = await weights.read(name, row, Math.min(each, shape[0] - row))
      gpu.writeRows(tensor, row, values)
      await arrived(values.length)
    }
  }
  return { dense, quantized }
}

/** The rotations of a model: of the layers that see everything, and of the sliding ones. */
export interface Rotations {
  readonly full: Rotation
  readonly sliding: Rotation
}

/** Frequencies on the GPU, and the factor of cosine and sine. */
export interface Rotation {
  readonly frequencies: Tensor<'f32'>
  readonly factor: number
}

/**
 * Puts the rotation frequencies of a model on the GPU.
 * @param divisors the tensor that a scaling of type 'tensor' names.
 */
export function uploadRotations(scope: Scope, config: ModelConfig, divisors?: ArrayLike<number>): Rotations {
  const upload = ({ inverse, attentionFactor }: RopeFrequencies): Rotation => ({
    frequencies: scope.upload('f32', [inverse.length], inverse, 'frequencies'),
    factor: attentionFactor,
  })
  const { ropeTheta, localRopeTheta, rotaryDimensions, ropeScaling } = config
  const full = upload(ropeFrequencies(ropeTheta, rotaryDimensions, ropeScaling, divisors))
  // Sliding layers with a theta of their own are not stretched.
  const sliding = localRopeTheta === undefined ? full : upload(ropeFrequencies(localRopeTheta, rotaryDimensions))
  return { full, sliding }
}
