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
import { add } from '../kernels/add.ts'
import { attention } from '../kernels/attention.ts'
import { addBias } from '../kernels/bias.ts'
import { cast } from '../kernels/copy.ts'
import { gelu, mul, scale, swiglu } from '../kernels/elementwise.ts'
import { embedding } from '../kernels/embedding.ts'
import { headCrossEntropy } from '../kernels/head-loss.ts'
import type { Int8Weight } from '../kernels/int8.ts'
import { anyLinear, type LoraPair, loraLinear } from '../kernels/lora.ts'
import { linear } from '../kernels/matmul.ts'
import type { Nf4Weight } from '../kernels/nf4.ts'
import { rmsNorm } from '../kernels/rms-norm.ts'
import { rope } from '../kernels/rope.ts'
import { checkpoint } from '../runtime/checkpoint.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import {
  type DecoderWeights,
  type LoadOptions,
  loadWeights,
  type Rotations,
  uploadRotations,
  uploadWeight,
  type WeightStorage,
} from './decoder-weights.ts'

/** Low-rank updates for the linear layers of a decoder, by `<layer>.<linear>`: what an adapter is to a model. */
export interface LinearUpdates {
  /** The update of one linear layer, or none. */
  pairFor(layer: number, linear: LinearName): LoraPair | undefined
}

/**
 * Called with every named activation as it is recorded, in the order of the network. Names of layer n:
 * `n.attention.input`, `n.query` (before RoPE), `n.attention.mixed`, `n.ffn.input`, `n.ffn.hidden`, `n.output`; and
 * `embedding` before all. Shapes are (B, T, features).
 */
export type Observe = (name: string, activation: Tensor<FloatType>) => void

/** What a forward pass is run with. */
export interface ForwardOptions {
  readonly updates?: LinearUpdates
  readonly observe?: Observe
  /** Layers to leave out, as an ablation does. */
  readonly skip?: ReadonlySet<number>
  /** Runs layers `begin` and later alone, from the residual stream `x` (B, T, C) before them: `ids` are not looked up. */
  readonly from?: { readonly begin: number; readonly x: Tensor<FloatType> }
  /** Layers to run; all unless told. */
  readonly end?: number
  /** Keeps only the input of each layer for the backward pass and makes the rest again: less memory, a third more work. */
  readonly checkpoint?: boolean
  /** u32 (B): the position of the first token of each row; 0 unless told. */
  readonly starts?: Tensor<'u32'>
  /** Attends in the place of {@link attention}: to a cache, say. */
  readonly attend?: Attend
  /** u32 (B, T, 2): the keys that each token may see, for rows that hold several sequences (see `attention`). */
  readonly ranges?: Tensor<'u32'>
}

/**
 * Attention of layer `layer`: from q (B, T, H, D), k and v (B, T, G, D), all rotated, to (B, T, H, D).
 */
export type Attend = (
  layer: number,
  q: Tensor<FloatType>,
  k: Tensor<FloatType>,
  v: Tensor<FloatType>,
  options: { readonly scale: number; readonly window?: number; readonly ranges?: Tensor<'u32'> },
) => Tensor<FloatType>

/** The activation that each linear layer reads: layers that read the same one share one PCA. */
export const inputOf: Readonly<Record<LinearName, string>> = {
  'self_attn.q_proj': 'attention.input',
  'self_attn.k_proj': 'attention.input',
  'self_attn.v_proj': 'attention.input',
  'self_attn.o_proj': 'attention.mixed',
  'mlp.gate_proj': 'ffn.input',
  'mlp.up_proj': 'ffn.input',
  'mlp.down_proj': 'ffn.hidden',
}

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
  readonly #quantized: ReadonlyMap<string, Nf4Weight | Int8Weight>
  readonly #rotations: Rotations
  readonly #scope: Scope

  private constructor(gpu: Gpu, config: ModelConfig, scope: Scope, weights: DecoderWeights, rotations: Rotations) {
    this.gpu = gpu
    this.config = config
    this.#scope = scope
    this.parameters = weights.dense
    this.#quantized = weights.quantized
    this.#rotations = rotations
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
    const scope = gpu.scope('decoder')
    const dense = new Map<string, Tensor<FloatType>>()
    const quantized = new Map<string, Nf4Weight | Int8Weight>()
    for (const [name, shape] of expectedTensors(config)) {
      const weight = uploadWeight(scope, name, shape, toFloat32(tensors.get(name)!), { storage })
      if (weight instanceof Tensor) dense.set(name, weight)
      else quantized.set(name, weight)
    }
    const full = asModelConfig(config)
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
    for (const { shape } of this.#quantized.values()) count += shape[0] * shape[1]
    return count
  }

  /**
   * Logits of the token after each token.
   * @param ids u32 (B, T), T at most the context length.
   * @returns (B, T, V) in the dtype of the weights.
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
            this.#layer(inner, layer, input, options),
          )
        : this.#layer(step, layer, input, options)
    }
    return x
  }

  #embed(step: Step, ids: Tensor<'u32'>): Tensor<FloatType> {
    const rows = embedding(step, this.#weight('model.embed_tokens.weight'), ids)
    return this.config.embeddingScale === 1 ? rows : scale(step, rows, this.config.embeddingScale)
  }

  /**
   * x · Wᵀ of one linear layer, without its bias: what its outputs are made of.
   * @param x f32 (…, K).
   * @returns f32 (…, N), with the weight as the decoder holds it.
   */
  product(step: Step, layer: number, name: LinearName, x: Tensor<'f32'>): Tensor<'f32'> {
    const key = `model.layers.${layer}.${name}.weight`
    const weight = this.#quantized.get(key) ?? cast(step, this.#weight(key), 'f32')
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

  #layer(step: Step, layer: number, x: Tensor<FloatType>, options: ForwardOptions): Tensor<FloatType> {
    const { config } = this
    const { heads, kvHeads, headSize, sandwichNorms } = config
    const [batch, tokens] = x.shape
    const see = (name: string, activation: Tensor<FloatType>) => {
      options.observe?.(`${layer}.${name}`, activation)
      return activation
    }
    const project = (input: Tensor<FloatType>, name: LinearName, residual?: Tensor<FloatType>) =>
      this.#project(step, layer, name, input, options, residual)
    const norm = (y: Tensor<FloatType>, name: string) => this.#norm(step, y, `model.layers.${layer}.${name}.weight`)
    const heading = (y: Tensor<FloatType>, count: number) => step.reshape(y, [batch, tokens, count, headSize])
    const slides = config.slidingLayers[layer]
    const { frequencies, factor } = slides ? this.#rotations.sliding : this.#rotations.full
    const turned = (y: Tensor<FloatType>, count: number, name: 'q_norm' | 'k_norm') => {
      const parts = heading(y, count)
      const normed = config.queryKeyNorm ? norm(parts, `self_attn.${name}`) : parts
      return rope(step, normed, frequencies, { factor, starts: options.starts })
    }
    // A family with norms behind its parts adds to the residual stream after them.
    const added = (input: Tensor<FloatType>, name: LinearName, behind: string) =>
      sandwichNorms ? add(step, x, norm(project(input, name), behind)) : project(input, name, x)

    const input = see('attention.input', norm(x, 'input_layernorm'))
    const query = see('query', project(input, 'self_attn.q_proj'))
    const q = turned(query, heads, 'q_norm')
    const k = turned(project(input, 'self_attn.k_proj'), kvHeads, 'k_norm')
    const v = heading(project(input, 'self_attn.v_proj'), kvHeads)
    const attend = options.attend ?? ((_, ...operands) => attention(step, ...operands))
    const window = slides ? config.slidingWindow : undefined
    const looks = { scale: config.attentionScale, window, ranges: options.ranges }
    const mixed = step.reshape(attend(layer, q, k, v, looks), [batch, tokens, heads * headSize])
    x = added(see('attention.mixed', mixed), 'self_attn.o_proj', 'post_attention_layernorm')

    const before = sandwichNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm'
    const ffnInput = see('ffn.input', norm(x, before))
    const gate = project(ffnInput, 'mlp.gate_proj')
    const up = project(ffnInput, 'mlp.up_proj')
    const hidden = config.activation === 'silu' ? swiglu(step, gate, up) : mul(step, gelu(step, gate), up)
    return see('output', added(see('ffn.hidden', hidden), 'mlp.down_proj', 'post_feedforward_layernorm'))
  }

  /** A linear layer with its update, its bias and what it is added to. */
  #project(
    step: Step,
    layer: number,
    name: LinearName,
    input: Tensor<FloatType>,
    { updates }: ForwardOptions,
    residual?: Tensor<FloatType>,
  ): Tensor<FloatType> {
    const key = `model.layers.${layer}.${name}`
    const weight = this.#quantized.get(`${key}.weight`) ?? this.#weight(`${key}.weight`)
    const bias = this.parameters.get(`${key}.bias`)
    const pair = updates?.pairFor(layer, name)
    // One base may be added where the product is made.
    const inside = pair || !(weight instanceof Tensor) ? undefined : (residual ?? bias)
    const y = pair
      ? loraLinear(step, input, weight, pair)
      : inside
        ? linear(step, input, weight as Tensor<FloatType>, { base: inside })
        : anyLinear(step, input, weight)
    const biased = bias && inside !== bias ? addBias(step, y, bias) : y
    return residual && inside !== residual ? add(step, residual, biased) : biased
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

/** Weights for a new model: see {@link Decoder.random}. */
export function randomTensors(config: DecoderConfig, random: Random, deviation = 0.02): Map<string, CpuTensor> {
  const residual = deviation / Math.sqrt(2 * config.layers)
  const tensors = new Map<string, CpuTensor>()
  for (const [name, shape] of expectedTensors(config)) {
    const size = shape.reduce((all, dimension) => all * dimension, 1)
    const writes = name.endsWith('o_proj.weight') || name.endsWith('down_proj.weight')
    const values = name.endsWith('norm.weight')
      ? new Float32Array(size).fill(1)
      : random.normals(size, writes ? residual : deviation)
    tensors.set(name, cpuTensor('F32', shape, values))
  }
  return tensors
}

/** Number of parameters of rank-`rank` updates to every linear layer of one layer. */
export function updateParameters(config: DecoderConfig, rank: number): number {
  return Object.values(linearShapes(config)).reduce((count, [n, k]) => count + rank * (n + k), 0)
}
