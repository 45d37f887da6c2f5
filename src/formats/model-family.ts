import type { RopeScaling } from './rope-scaling.ts'

/** Sizes of a Llama-style decoder. */
export interface DecoderConfig {
  readonly vocabularySize: number
  /** C: size of the residual stream. */
  readonly width: number
  readonly layers: number
  readonly heads: number
  /** Key and value heads; `heads` is a multiple. */
  readonly kvHeads: number
  readonly headSize: number
  readonly ffnWidth: number
  readonly normEps: number
  readonly ropeTheta: number
  /** Most tokens of a sequence. */
  readonly contextLength: number
  /** Whether the head is the transposed embedding. */
  readonly tiedHead: boolean
  /** Id that ends an answer. */
  readonly eosId: number
}

/** Families of decoders whose files are read. */
export const families = ['llama', 'mistral', 'qwen2', 'qwen3', 'gemma3', 'phi3'] as const

/** A family of decoders. */
export type Family = (typeof families)[number]

/**
 * Everything that tells one decoder from another, whichever file said so. Weights are meant as {@link tensorRecipes}
 * delivers them: q and k in Hugging Face's order, Phi-3's fused layers split, norm weights as factors (Gemma's 1 + w
 * is done), so that a decoder never asks which family it runs.
 */
export interface ModelConfig extends DecoderConfig {
  readonly family: Family
  /** Ids that end an answer; `eosId` is the first. */
  readonly eosIds: readonly number[]
  readonly bosId?: number
  readonly padId?: number
  /** Of the gate: gate(x) · up(x). */
  readonly activation: 'silu' | 'gelu-tanh'
  /** Factor of q·k: 1/√headSize, unless the family says otherwise. */
  readonly attentionScale: number
  /** Factor of the embedding: √width for Gemma, else 1. */
  readonly embeddingScale: number
  /** Numbers of a head that are rotated: the first `rotaryDimensions` of `headSize`. */
  readonly rotaryDimensions: number
  /** Stretching of the layers that see everything; sliding layers with a theta of their own have none. */
  readonly ropeScaling?: RopeScaling
  /** Theta of the sliding layers, where it differs. */
  readonly localRopeTheta?: number
  /** Tokens that a sliding layer sees, itself included. */
  readonly slidingWindow?: number
  /** For each layer, whether it sees only the window. */
  readonly slidingLayers: readonly boolean[]
  /** Whether q, k and v have a bias. */
  readonly qkvBias: boolean
  /** Whether the output projection has a bias. */
  readonly outputBias: boolean
  /** Whether gate, up and down have biases. */
  readonly mlpBias: boolean
  /** Whether each head of q and k passes an RMSNorm before RoPE. */
  readonly queryKeyNorm: boolean
  /** Whether attention and FFN have a norm behind them too, before they are added (Gemma). */
  readonly sandwichNorms: boolean
  /** Whether activations pass f16's largest number, 65,504, so that they are f32 whatever holds the weights (Gemma). */
  readonly wideActivations: boolean
}

/**
 * What `config` asks for beyond a plain Llama decoder, in words; empty for plain Llama.
 * @param contextLength tokens that will be run: a window at least as long changes nothing.
 */
export function extraFeatures(config: ModelConfig, contextLength: number = config.contextLength): string[] {
  const slides = config.slidingLayers.includes(true) && (config.slidingWindow ?? 0) < contextLength
  const features: Readonly<Record<string, boolean>> = {
    'gelu-tanh activation': config.activation !== 'silu',
    'attention scale': Math.abs(config.attentionScale * Math.sqrt(config.headSize) - 1) > 1e-6,
    'embedding scale': config.embeddingScale !== 1,
    'partial rotation': config.rotaryDimensions !== config.headSize,
    'rope scaling': config.ropeScaling !== undefined,
    'a theta of its own for sliding layers': config.localRopeTheta !== undefined,
    'sliding window': slides,
    'biases of q, k and v': config.qkvBias,
    'bias of the output projection': config.outputBias,
    'biases of the FFN': config.mlpBias,
    'norms of q and k': config.queryKeyNorm,
    'sandwich norms': config.sandwichNorms,
  }
  return Object.keys(features).filter((name) => features[name])
}

/** A plain Llama decoder as a {@link ModelConfig}; what is one already stays as it is. */
export function asModelConfig(config: DecoderConfig | ModelConfig): ModelConfig {
  if ('family' in config) return config
  return {
    ...config,
    ...familyTraits('llama', config.width),
    family: 'llama',
    eosIds: [config.eosId],
    attentionScale: config.headSize ** -0.5,
    rotaryDimensions: config.headSize,
    slidingLayers: new Array(config.layers).fill(false),
    ...{ qkvBias: false, outputBias: false, mlpBias: false },
  }
}

/** The parts of a {@link ModelConfig} that a family alone decides. */
export function familyTraits(family: Family, width: number) {
  const gemma = family === 'gemma3'
  return {
    activation: gemma ? 'gelu-tanh' : 'silu',
    embeddingScale: gemma ? Math.sqrt(width) : 1,
    queryKeyNorm: gemma || family === 'qwen3',
    sandwichNorms: gemma,
    wideActivations: gemma,
  } as const
}

const mostLayers = 1024
const mostSize = 2 ** 31 - 1

/**
 * Checks the sizes of a model against each other.
 * @param fault makes the error for a reason.
 */
export function checkSizes(config: ModelConfig, fault: (reason: string) => SyntaxError): void {
  const { heads, kvHeads, headSize, layers, vocabularySize, width, ffnWidth, contextLength, rotaryDimensions } = config
  for (const [name, size] of Object.entries({
    vocabularySize,
    width,
    ffnWidth,
    heads,
    kvHeads,
    headSize,
    contextLength,
  }))
    if (!Number.isInteger(size) || size < 1 || size > mostSize)
      throw fault(`${name} is ${size}; it must be an integer from 1 to ${mostSize}`)
  if (!Number.isInteger(layers) || layers < 1 || layers > mostLayers)
    throw fault(`it has ${layers} layers; 1 to ${mostLayers} are read`)
  if (heads % kvHeads !== 0) throw fault(`${heads} heads are not a multiple of the ${kvHeads} key and value heads`)
  if (headSize % 4 !== 0) throw fault(`the head size ${headSize} is not a multiple of 4`)
  if (rotaryDimensions % 2 !== 0 || rotaryDimensions < 2 || rotaryDimensions > headSize)
    throw fault(`${rotaryDimensions} of ${headSize} numbers of a head cannot be rotated`)
  for (const [name, id] of [...config.eosIds.map((id) => ['end', id] as const), ['begin', config.bosId] as const])
    if (id !== undefined && !(Number.isInteger(id) && id >= 0 && id < vocabularySize))
      throw fault(`the id of the ${name} token, ${id}, is not below the vocabulary's size ${vocabularySize}`)
}
