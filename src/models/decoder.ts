import type { FloatType } from '../core/dtype.ts'
import { Random } from '../core/random.ts'
import { showShape } from '../core/shape.ts'
import {
  checkWeights,
  type DecoderConfig,
  expectedTensors,
  type LinearName,
  linearShapes,
} from '../formats/model-config.ts'
import { asModelConfig, type ModelConfig } from '../formats/model-family.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { cast } from '../kernels/copy.ts'
import { scale } from '../kernels/elementwise.ts'
import { embedding } from '../kernels/embedding.ts'
import { headCrossEntropy } from '../kernels/head-loss.ts'
import { type Int8Weight, packedInt8 } from '../kernels/int8.ts'
import { anyLinear } from '../kernels/lora.ts'
import { linear } from '../kernels/matmul.ts'
import { type Nf4Weight, packedNf4 } from '../kernels/nf4.ts'
import { rmsNorm } from '../kernels/rms-norm.ts'
import { checkpoint } from '../runtime/checkpoint.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import { type ForwardOptions, inputOf, type Network, runLayer } from './decoder-layer.ts'
import {
  activationType,
  type DecoderWeights,
  type LoadOptions,
  loadWeights,
  type Rotations,
  uploadRotations,
  uploadWeight,
  type WeightStorage,
} from './decoder-weights.ts'
import { randomTensors } from './random-tensors.ts'

export type { Attend, BatchUpdates, ForwardOptions, LinearUpdates, Observe } from './decoder-layer.ts'
export { inputOf } from './decoder-layer.ts'

const linearNames = Object.keys(inputOf) as LinearName[]

/**
 * A decoder of the Llama kind: RMSNorm, RoPE, grouped heads, a gated FFN, tied or untied head; and what its relatives add
 * to that (see {@link ModelConfig}). Its weights live until it is disposed of.
 *
 * @example
 * await using files = await openModel('SmolLM2-135M-Instruct.Q4_1.gguf')
 * using model = await Decoder.open(gpu, files.weights, { storage: 'nf4' })
 * using step = gpu.step()
 * const logits = model.forward(step, step.upload('u32', [1, 3], [1, 2, 3]))
 */
export class Decoder implements Disposable {
  readonly config: ModelConfig
  readonly gpu: Gpu
  /** Of the activations. */
  readonly dtype: FloatType
  /** Dense weights by the names of Hugging Face files. */
  readonly parameters: ReadonlyMap<string, Tensor<FloatType>>
  readonly #network: Network
  readonly #scope: Scope

  private constructor(gpu: Gpu, config: ModelConfig, scope: Scope, weights: DecoderWeights, rotations: Rotations) {
    this.gpu = gpu
    this.config = config
    this.#scope = scope
    this.parameters = weights.dense
    this.#network = { config, weights, rotations }
    this.dtype = this.#weight('model.norm.weight').dtype
  }

  /**
   * Puts a plain Llama model on the GPU.
   * @param tensors the tensors of its file, by name.
   * @throws SyntaxError when the tensors are not those of `config`.
   */
  static load(
    gpu: Gpu,
    config: DecoderConfig,
    tensors: ReadonlyMap<string, CpuTensor>,
    storage: WeightStorage = 'f32',
  ): Decoder {
    checkWeights(config, tensors)
    const full = asModelConfig(config)
    const activations = activationType(full, { storage })
    const scope = gpu.scope('decoder')
    const dense = new Map<string, Tensor<FloatType>>()
    const quantized = new Map<string, Nf4Weight | Int8Weight>()
    for (const [name, shape] of expectedTensors(config)) {
      const weight = uploadWeight(scope, name, shape, toFloat32(tensors.get(name)!), activations, { storage })
      if (weight instanceof Tensor) dense.set(name, weight)
      else quantized.set(name, weight)
    }
    return new Decoder(gpu, full, scope, { dense, quantized }, uploadRotations(scope, full))
  }

  /**
   * Reads a model of any supported family onto the GPU, a window of rows at a time.
   * @throws SyntaxError when its file is damaged, ResourceError when the GPU is too small; then nothing is left on it.
   */
  static async open(gpu: Gpu, weights: ModelWeights, options: LoadOptions = {}): Promise<Decoder> {
    const { config } = weights
    const scope = gpu.scope('decoder')
    try {
      const { ropeScaling } = config
      const divisors = ropeScaling?.type === 'tensor' ? await weights.readExtra(ropeScaling.name) : undefined
      const rotations = uploadRotations(scope, config, divisors)
      return new Decoder(gpu, config, scope, await loadWeights(gpu, scope, weights, options), rotations)
    } catch (error) {
      scope[Symbol.dispose]()
      throw error
    }
  }

  /**
   * A model with random weights: N(0, deviation²), those that write to the residual stream divided by √(2L).
   * @param deviation 0.02 unless told.
   * @see Radford et al., GPT-2, 2019, section 2.3.
   */
  static random(gpu: Gpu, config: DecoderConfig, random: Random = new Random(), deviation = 0.02): Decoder {
    return Decoder.load(gpu, config, randomTensors(config, random, deviation))
  }

  /** Number of parameters, the quantised ones too. */
  get parameterCount(): number {
    let count = 0
    for (const tensor of this.parameters.values()) count += tensor.size
    for (const { shape } of this.#network.weights.quantized.values()) count += shape[0] * shape[1]
    return count
  }

  /** Bytes of all weights as they are held. */
  get weightBytes(): number {
    let bytes = 0
    for (const tensor of this.parameters.values()) bytes += tensor.bytes
    for (const weight of this.#network.weights.quantized.values())
      bytes += ('absmax' in weight ? packedInt8('weightBytes', weight) : packedNf4('weightBytes', weight)).bytes
    return bytes
  }

  /**
   * Logits of the token after each token.
   * @param ids u32 (B, T), T at most the context length.
   * @returns (B, T, V) in the dtype of the activations.
   * @throws RangeError when the sequence is too long.
   */
  forward(step: Step, ids: Tensor<'u32'>, options: ForwardOptions = {}): Tensor<FloatType> {
    return this.head(step, this.hidden(step, ids, options))
  }

  /** The residual stream after the last layer, (B, T, C), before the final norm. */
  hidden(step: Step, ids: Tensor<'u32'>, options: ForwardOptions = {}): Tensor<FloatType> {
    const { config } = this
    if (ids.shape.length !== 2 || ids.shape[1] > config.contextLength)
      throw new RangeError(
        `Cannot run the decoder on ids ${showShape(ids.shape)}: they must be (B, T) with T at most ${config.contextLength}`,
      )
    let x = options.from?.x ?? this.#embed(step, ids)
    if (!options.from) options.observe?.('embedding', x)
    if (options.checkpoint && options.observe)
      throw new RangeError('Cannot observe activations under checkpointing: they are given back at once')
    for (let layer = options.from?.begin ?? 0; layer < (options.end ?? config.layers); layer++) {
      if (options.skip?.has(layer)) continue
      const input = x
      x = options.checkpoint
        ? checkpoint(step, `layer ${layer}`, [input, ...this.#trained(layer, options)], (inner) =>
            runLayer(this.#network, inner, layer, input, options),
          )
        : runLayer(this.#network, step, layer, input, options)
    }
    return x
  }

  #embed(step: Step, ids: Tensor<'u32'>): Tensor<FloatType> {
    const rows = cast(step, embedding(step, this.#weight('model.embed_tokens.weight'), ids), this.dtype)
    return this.config.embeddingScale === 1 ? rows : scale(step, rows, this.config.embeddingScale)
  }

  /**
   * x · Wᵀ of one linear layer, without its bias: what its outputs are made of.
   * @param x f32 (…, K).
   * @returns f32 (…, N), with the weight as the decoder holds it.
   */
  product(step: Step, layer: number, name: LinearName, x: Tensor<'f32'>): Tensor<'f32'> {
    const key = `model.layers.${layer}.${name}.weight`
    const weight = this.#network.weights.quantized.get(key) ?? cast(step, this.#weight(key), 'f32')
    return anyLinear(step, x, weight) as Tensor<'f32'>
  }

  /** Logits from the residual stream: final norm and head. */
  head(step: Step, hidden: Tensor<FloatType>): Tensor<FloatType> {
    return linear(step, this.normed(step, hidden), this.headWeight)
  }

  /** (V, C): what the head multiplies with, for losses that never make its logits. */
  get headWeight(): Tensor<FloatType> {
    return this.#weight(this.config.tiedHead ? 'model.embed_tokens.weight' : 'lm_head.weight')
  }

  /** What the head reads: the residual stream after the final norm. */
  normed(step: Step, hidden: Tensor<FloatType>): Tensor<FloatType> {
    return this.#norm(step, hidden, 'model.norm.weight')
  }

  /**
   * −log probability of each token's target, from the residual stream and without all logits at once.
   * @param targets u32 (B, T).
   * @returns f32 (B, T), in nats.
   */
  losses(step: Step, hidden: Tensor<FloatType>, targets: Tensor<'u32'>): Tensor<'f32'> {
    return headCrossEntropy(step, this.normed(step, hidden), this.headWeight, targets)
  }

  /** Weights and updates of a layer that want a gradient. */
  #trained(layer: number, { updates }: ForwardOptions): Tensor[] {
    const prefix = `model.layers.${layer}.`
    const own = [...this.parameters].filter(([name]) => name.startsWith(prefix)).map(([, tensor]) => tensor)
    const pairs = linearNames.flatMap((name) => {
      const pair = updates?.pairFor(layer, name)
      return pair ? [pair.a, pair.b] : []
    })
    return [...own, ...pairs].filter(({ requiresGrad }) => requiresGrad)
  }

  #norm(step: Step, x: Tensor<FloatType>, name: string): Tensor<FloatType> {
    return rmsNorm(step, x, this.#weight(name), { eps: this.config.normEps })
  }

  /** The dense weights as tensors of a file. */
  async toTensors(dtype: 'F32' | 'F16'): Promise<Map<string, CpuTensor>> {
    const tensors = new Map<string, CpuTensor>()
    for (const [name, tensor] of this.parameters)
      tensors.set(name, cpuTensor(dtype, tensor.shape, await this.gpu.read(tensor)))
    return tensors
  }

  #weight(name: string): Tensor<FloatType> {
    return this.parameters.get(name)!
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}

/** Number of parameters of rank-`rank` updates to every linear layer of one layer. */
export function updateParameters(config: DecoderConfig, rank: number): number {
  return Object.values(linearShapes(config)).reduce((count, [n, k]) => count + rank * (n + k), 0)
}
