import { z } from 'zod'
import { type Shape, sameShape, showShape } from '../core/shape.ts'
import type { CpuTensor } from './tensor.ts'

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

const size = z.number().int().positive()
const schema = z.object({
  model_type: z.string(),
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.optional(),
  head_dim: size.optional(),
  intermediate_size: size,
  hidden_act: z.string().default('silu'),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().default(10_000),
  rope_scaling: z.null().optional(),
  max_position_embeddings: size,
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.literal(false).default(false),
  mlp_bias: z.literal(false).default(false),
  eos_token_id: z.number().int().nonnegative().optional(),
})

const supported = ['llama']

/**
 * Reads a Hugging Face config.json.
 * @param json the parsed file.
 * @throws SyntaxError naming the field that is missing, wrong or contradicts another.
 */
export function parseModelConfig(json: unknown): DecoderConfig {
  const fault = (reason: string) => new SyntaxError(`Cannot read config.json: ${reason}`)
  const type = (json as { model_type?: unknown } | null)?.model_type
  if (!supported.includes(type as string))
    throw fault(`model_type is ${JSON.stringify(type)}; supported is ${supported.join(', ')}`)
  const result = schema.safeParse(json)
  if (!result.success) {
    const [issue] = result.error.issues
    throw fault(`${issue.path.join('.')}: ${issue.message}`)
  }
  const c = result.data
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads
  if (c.hidden_act !== 'silu') throw fault(`hidden_act is ${c.hidden_act}; supported is silu`)
  if (c.num_attention_heads % kvHeads !== 0)
    throw fault(`num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${kvHeads}`)
  if (c.head_dim === undefined && c.hidden_size % c.num_attention_heads !== 0)
    throw fault(`hidden_size ${c.hidden_size} is not a multiple of num_attention_heads ${c.num_attention_heads}`)
  const headSize = c.head_dim ?? c.hidden_size / c.num_attention_heads
  if (headSize % 4 !== 0) throw fault(`the head size ${headSize} is not a multiple of 4`)
  const eosId = c.eos_token_id ?? 0
  if (eosId >= c.vocab_size) throw fault(`eos_token_id ${eosId} is not below vocab_size ${c.vocab_size}`)
  return {
    vocabularySize: c.vocab_size,
    width: c.hidden_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads,
    headSize,
    ffnWidth: c.intermediate_size,
    normEps: c.rms_norm_eps,
    ropeTheta: c.rope_theta,
    contextLength: c.max_position_embeddings,
    tiedHead: c.tie_word_embeddings,
    eosId,
  }
}

/** The config.json of a decoder, as Hugging Face's Llama classes read it. */
export function toHuggingFaceConfig(config: DecoderConfig, dtype: 'float16' | 'float32'): object {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: config.vocabularySize,
    hidden_size: config.width,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headSize,
    intermediate_size: config.ffnWidth,
    hidden_act: 'silu',
    rms_norm_eps: config.normEps,
    rope_theta: config.ropeTheta,
    max_position_embeddings: config.contextLength,
    tie_word_embeddings: config.tiedHead,
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: config.eosId,
    eos_token_id: config.eosId,
    torch_dtype: dtype,
  }
}

/** The linear layers of a decoder layer: their names in files, and (N, K) of each. */
export function linearShapes(config: DecoderConfig): Readonly<Record<LinearName, readonly [number, number]>> {
  const { width, heads, kvHeads, headSize, ffnWidth } = config
  return {
    'self_attn.q_proj': [heads * headSize, width],
    'self_attn.k_proj': [kvHeads * headSize, width],
    'self_attn.v_proj': [kvHeads * headSize, width],
    'self_attn.o_proj': [width, heads * headSize],
    'mlp.gate_proj': [ffnWidth, width],
    'mlp.up_proj': [ffnWidth, width],
    'mlp.down_proj': [width, ffnWidth],
  }
}

/** Name of a linear layer inside a decoder layer. */
export type LinearName = `self_attn.${'q' | 'k' | 'v' | 'o'}_proj` | `mlp.${'gate' | 'up' | 'down'}_proj`

/** Name and shape of every tensor that a decoder's file must hold, in the order of the network. */
export function expectedTensors(config: DecoderConfig): Map<string, Shape> {
  const { vocabularySize, width } = config
  const names = new Map<string, Shape>([['model.embed_tokens.weight', [vocabularySize, width]]])
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`
    names.set(`${prefix}.input_layernorm.weight`, [width])
    for (const [name, shape] of Object.entries(linearShapes(config))) names.set(`${prefix}.${name}.weight`, shape)
    names.set(`${prefix}.post_attention_layernorm.weight`, [width])
  }
  names.set('model.norm.weight', [width])
  if (!config.tiedHead) names.set('lm_head.weight', [vocabularySize, width])
  return names
}

/** Number of parameters of a decoder. */
export function parameterCount(config: DecoderConfig): number {
  let count = 0
  for (const shape of expectedTensors(config).values()) count += shape.reduce((size, dimension) => size * dimension, 1)
  return count
}

/**
 * Checks that a file's tensors are those of `config`.
 * @throws SyntaxError naming the first that is missing, unknown or of another shape.
 */
export function checkWeights(config: DecoderConfig, tensors: ReadonlyMap<string, CpuTensor>): void {
  const expected = expectedTensors(config)
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name)
    if (!tensor) throw new SyntaxError(`Cannot load the model: config.json asks for ${name}, which the weights lack`)
    if (!sameShape(tensor.shape, shape))
      throw new SyntaxError(
        `Cannot load the model: ${name} must be ${showShape(shape)} by config.json, the file has ${showShape(tensor.shape)}`,
      )
  }
  for (const name of tensors.keys())
    if (!expected.has(name))
      throw new SyntaxError(`Cannot load the model: its file holds ${name}, which config.json does not ask for`)
}
