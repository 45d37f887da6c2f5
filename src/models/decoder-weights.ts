import type { FloatType } from '../core/dtype.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import { quantizeInt8 } from '../formats/int8.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { nf4BlockSize, quantizeNf4, quantizeScales } from '../formats/nf4.ts'
import { type RopeFrequencies, ropeFrequencies } from '../formats/rope-scaling.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { type Int8Weight, uploadInt8 } from '../kernels/int8.ts'
import { type Nf4Weight, uploadNestedScales, uploadNf4 } from '../kernels/nf4.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** How the linear layers of a decoder can be held. Norms, biases and embedding are never quantised; f16 holds the embedding too. */
export const weightStorages = ['f32', 'f16', 'nf4', 'nf4-double', 'int8'] as const

/** One of `weightStorages`. */
export type WeightStorage = (typeof weightStorages)[number]

/** How a decoder is put on the GPU. */
export interface LoadOptions {
  readonly storage?: WeightStorage
  /**
   * Of activations, norms, biases, and of an embedding beside quantised layers. Unless told it is f16 with f16 storage, but
   * for families whose activations pass its range, and f32 else.
   */
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

/**
 * The dtype of activations under `options`.
 * @throws RangeError when f16 is asked for and the family's activations pass its range.
 */
export function activationType(
  { family, wideActivations }: Pick<ModelConfig, 'family' | 'wideActivations'>,
  { storage = 'f32', dtype }: LoadOptions,
): FloatType {
  if (dtype === 'f16' && wideActivations)
    throw new RangeError(
      `Cannot run ${family} with activations in f16: they pass its largest number. Use f32; the weights may be f16.`,
    )
  return dtype ?? (storage === 'f16' && !wideActivations ? 'f16' : 'f32')
}

/** The dtype of a weight that is not quantised: norms and biases follow the activations, matrices the storage. */
function weightType(shape: Shape, activations: FloatType, { storage }: LoadOptions): FloatType {
  return storage === 'f16' && shape.length > 1 ? 'f16' : activations
}

/** Whether a weight is quantised where the storage asks for it: the linear layers are, all else is not. */
function isLinear(name: string): boolean {
  return name.endsWith('_proj.weight')
}

/**
 * Puts a whole matrix or vector on the GPU.
 * @param activations as {@link activationType} says.
 */
export function uploadWeight(
  scope: Scope,
  name: string,
  shape: Shape,
  values: Float32Array<ArrayBuffer>,
  activations: FloatType,
  options: LoadOptions,
): Tensor<FloatType> | Nf4Weight | Int8Weight {
  const { storage = 'f32' } = options
  if (isLinear(name)) {
    if (storage === 'int8') return uploadInt8(scope, quantizeInt8(values, shape), name)
    if (storage === 'nf4') return uploadNf4(scope, quantizeNf4(values, shape), name)
    if (storage === 'nf4-double') return uploadNf4(scope, quantizeNf4(values, shape, { doubleQuant: true }), name)
  }
  return scope.upload(weightType(shape, activations, options), shape, values, name)
}

/** Elements that are read and written at once. */
const pieceSize = 2 ** 22
/** Bytes that may wait in the driver before the loader waits for them. */
const waitingBytes = 64 * 2 ** 20

/** Rows of a matrix as f32. */
type ReadRows = (first: number, count: number) => Promise<Float32Array<ArrayBuffer>>

/**
 * Quantises a matrix onto the GPU a window of rows at a time: the same codes and scales as of the whole.
 * @param shape (N, K), K a multiple of 8.
 * @param read gives rows of it.
 * @param pieceElements elements of a window, about.
 */
export async function quantizeRows(
  gpu: Gpu,
  scope: Scope,
  name: string,
  shape: Shape,
  storage: 'nf4' | 'nf4-double' | 'int8',
  read: ReadRows,
  pieceElements = pieceSize,
): Promise<Nf4Weight | Int8Weight> {
  const [n, k] = shape
  // Windows of eight rows begin at whole blocks of 64 values.
  const each = 8 * Math.max(1, Math.floor(pieceElements / k / 8))
  const words = (codes: Uint8Array<ArrayBuffer> | Int8Array<ArrayBuffer>) => new Uint32Array(codes.buffer)
  const blocks = Math.ceil((n * k) / nf4BlockSize)
  const int8 = storage === 'int8'
  const codes = scope.empty('u32', [(n * k) / (int8 ? 4 : 8)], name)
  // Nested scales share a mean, so they wait for the last.
  const held = storage === 'nf4-double' ? new Float32Array(blocks) : undefined
  const scales = held ? undefined : scope.empty('f32', [int8 ? n : blocks], `${name}.absmax`)
  for (let row = 0; row < n; row += each) {
    const count = Math.min(each, n - row)
    const values = await read(row, count)
    if (int8) {
      const part = quantizeInt8(values, [count, k])
      gpu.writeRows(codes, (row * k) / 4, words(part.codes))
      gpu.writeRows(scales!, row, part.absmax)
      continue
    }
    const part = quantizeNf4(values, [count, k])
    gpu.writeRows(codes, (row * k) / 8, words(part.codes))
    if (held) held.set(part.scales, (row * k) / nf4BlockSize)
    else gpu.writeRows(scales!, (row * k) / nf4BlockSize, part.scales)
  }
  if (int8) return { shape, codes, absmax: scales! }
  return { shape, codes, scales: held ? uploadNestedScales(scope, quantizeScales(held), name) : scales! }
}

/**
 * Reads a model's weights onto the GPU, a window of rows at a time: on the host there is never more than a few.
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
  const activations = activationType(weights.config, options)
  const total = [...weights.recipes.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  let done = 0
  let waiting = 0
  const arrived = async (count: number) => {
    signal?.throwIfAborted()
    done += count
    waiting += 4 * count
    if (waiting > waitingBytes) {
      await gpu.finish()
      waiting = 0
    }
    const millions = Math.ceil(total / 1e6)
    // Rounded down until the last weight is there: a task that is done is shown as done once.
    const shown = done === total ? millions : Math.min(millions - 1, Math.floor(done / 1e6))
    onProgress({ task: 'load', done: shown, total: millions, unit: 'million weights' })
  }
  for (const [name, { shape }] of weights.recipes) {
    const read: ReadRows = async (first, count) => {
      const values = await weights.read(name, first, count)
      await arrived(values.length)
      return values
    }
    if (isLinear(name) && storage !== 'f32' && storage !== 'f16') {
      if (shape[1] % 8 !== 0)
        throw new RangeError(`Cannot hold ${name} ${showShape(shape)} as ${storage}: its rows must be multiples of 8`)
      quantized.set(name, await quantizeRows(gpu, scope, name, shape, storage, read))
      continue
    }
    const tensor = scope.empty(weightType(shape, activations, options), shape, name)
    dense.set(name, tensor)
    const columns = shape.length === 1 ? 1 : shape[1]
    // Windows of rows begin at whole words whatever the dtype.
    const each = 2 * Math.max(1, Math.floor(pieceSize / columns / 2))
    for (let row = 0; row < shape[0]; row += each) {
      gpu.writeRows(tensor, row, await read(row, Math.min(each, shape[0] - row)))
    }
  }
  await gpu.finish()
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
