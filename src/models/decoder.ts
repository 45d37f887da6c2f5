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
import { quantizeNf4 } from '../formats/nf4.ts'
import { ropeFrequencies } from '../formats/rope-scaling.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { attention } from '../kernels/attention.ts'
import { swiglu } from '../kernels/elementwise.ts'
import { embedding } from '../kernels/embedding.ts'
import { headCrossEntropy } from '../kernels/head-loss.ts'
import { anyLinear, type LoraPair, loraLinear } from '../kernels/lora.ts'
import { linear } from '../kernels/matmul.ts'
import { type Nf4Weight, uploadNf4 } from '../kernels/nf4.ts'
import { rmsNorm } from '../kernels/rms-norm.ts'
import { rope } from '../kernels/rope.ts'
import { checkpoint } from '../runtime/checkpoint.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'

/** How the linear layers of a decoder are held. */
export type WeightStorage = FloatType | 'nf4'

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
  /** Keeps only the input of each layer for the backward pass and makes the rest again: less memory, a third more work. */
  readonly checkpoint?: boolean
  /** u32 (B, T): where the sequence of each token begins in its row, for rows that hold several (see `attention`). */
  readonly starts?: Tensor<'u32'>
}

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
 * A Llama-style decoder: RMSNorm, RoPE, grouped heads, SwiGLU, tied or untied head. Its weights live until it is
 * disposed of.
 *
 * @example
 * using model = Decoder.load(gpu, config, tensors)
 * using step = gpu.step()
 * const logits = model.forward(step, step.upload('u32', [1, 3], [1, 2, 3]))
 */
export class Decoder implements Disposable {
  readonly config: DecoderConfig
  readonly gpu: Gpu
  /** Dense weights by the names of Hugging Face files. */
  readonly parameters: ReadonlyMap<string, Tensor<FloatType>>
  readonly #quantized: ReadonlyMap<string, Nf4Weight>
  readonly #frequencies: Tensor<'f32'>
  readonly #scope: Scope

  private constructor(
    gpu: Gpu,
    config: DecoderConfig,
    scope: Scope,
    parameters: ReadonlyMap<string, Tensor<FloatType>>,
    quantized: ReadonlyMap<string, Nf4Weight>,
  ) {
    this.gpu = gpu
    this.config = config
    this.#scope = scope
    this.parameters = parameters
    this.#quantized = quantized
    const { inverse } = ropeFrequencies(config.ropeTheta, config.headSize)
    this.#frequencies = scope.upload('f32', [inverse.length], inverse, 'frequencies')
  }

  /**
   * Puts a model on the GPU.
   * @param tensors the tensors of its file, by name.
   * @param storage how to hold the linear layers; norms and embedding stay f32 under 'nf4'.
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
    const parameters = new Map<string, Tensor<FloatType>>()
    const quantized = new Map<string, Nf4Weight>()
    for (const [name, shape] of expectedTensors(config)) {
      const values = toFloat32(tensors.get(name)!)
      if (storage === 'nf4' && name.endsWith('_proj.weight'))
        quantized.set(name, uploadNf4(scope, quantizeNf4(values, shape), name))
      else parameters.set(name, scope.upload(storage === 'f16' ? 'f16' : 'f32', shape, values, name))
    }
    return new Decoder(gpu, config, scope, parameters, quantized)
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
    let x = embedding(step, this.#weight('model.embed_tokens.weight'), ids)
    options.observe?.('embedding', x)
    if (options.checkpoint && options.observe)
      throw new RangeError('Cannot observe activations under checkpointing: they are given back at once')
    for (let layer = 0; layer < config.layers; layer++) {
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

  /** Logits from the residual stream: final norm and head. */
  head(step: Step, hidden: Tensor<FloatType>): Tensor<FloatType> {
    return linear(step, this.#normed(step, hidden), this.#headWeight)
  }

  /**
   * −log probability of each token's target, from the residual stream and without all logits at once.
   * @param targets u32 (B, T).
   * @returns f32 (B, T), in nats.
   */
  losses(step: Step, hidden: Tensor<FloatType>, targets: Tensor<'u32'>): Tensor<'f32'> {
    return headCrossEntropy(step, this.#normed(step, hidden), this.#headWeight, targets)
  }

  #normed(step: Step, hidden: Tensor<FloatType>): Tensor<FloatType> {
    return rmsNorm(step, hidden, this.#weight('model.norm.weight'), { eps: this.config.normEps })
  }

  get #headWeight(): Tensor<FloatType> {
    return this.#weight(this.config.tiedHead ? 'model.embed_tokens.weight' : 'lm_head.weight')
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

  #layer(
    step: Step,
    layer: number,
    x: Tensor<FloatType>,
    { updates, observe, starts }: ForwardOptions,
  ): Tensor<FloatType> {
    const { heads, kvHeads, headSize, normEps } = this.config
    const [batch, tokens] = x.shape
    const prefix = `model.layers.${layer}`
    const see = (name: string, activation: Tensor<FloatType>) => {
      observe?.(`${layer}.${name}`, activation)
      return activation
    }
    const project = (input: Tensor<FloatType>, name: LinearName, residual?: Tensor<FloatType>) => {
      const key = `${prefix}.${name}.weight`
      const weight = this.#quantized.get(key) ?? this.#weight(key)
      const pair = updates?.pairFor(layer, name)
      if (!pair && residual && weight instanceof Tensor) return linear(step, input, weight, { base: residual })
      const y = pair ? loraLinear(step, input, weight, pair) : anyLinear(step, input, weight)
      return residual ? add(step, residual, y) : y
    }
    const split = (y: Tensor<FloatType>, count: number) => step.reshape(y, [batch, tokens, count, headSize])
    const norm = (y: Tensor<FloatType>, name: string) =>
      rmsNorm(step, y, this.#weight(`${prefix}.${name}.weight`), { eps: normEps })

    const input = see('attention.input', norm(x, 'input_layernorm'))
    const query = see('query', project(input, 'self_attn.q_proj'))
    const q = rope(step, split(query, heads), this.#frequencies)
    const k = rope(step, split(project(input, 'self_attn.k_proj'), kvHeads), this.#frequencies)
    const v = split(project(input, 'self_attn.v_proj'), kvHeads)
    const mixed = see(
      'attention.mixed',
      step.reshape(attention(step, q, k, v, { starts }), [batch, tokens, heads * headSize]),
    )
    const middle = project(mixed, 'self_attn.o_proj', x)

    const ffnInput = see('ffn.input', norm(middle, 'post_attention_layernorm'))
    const gate = project(ffnInput, 'mlp.gate_proj')
    const hidden = see('ffn.hidden', swiglu(step, gate, project(ffnInput, 'mlp.up_proj')))
    return see('output', project(hidden, 'mlp.down_proj', middle))
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
