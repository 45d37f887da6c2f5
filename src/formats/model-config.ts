import { type Shape, sameShape, showShape } from '../core/shape.ts'
import { parseHuggingFaceConfig } from './hugging-face-config.ts'
import { type DecoderConfig, extraFeatures } from './model-family.ts'

export type { DecoderConfig } from './model-family.ts'

/**
 * Reads the config.json of a plain Llama decoder, whichever family it calls itself.
 * @param json the parsed file.
 * @throws SyntaxError naming the field that is missing, wrong or contradicts another, or what a plain decoder lacks.
 */
export function parseModelConfig(json: unknown): DecoderConfig {
  const config = parseHuggingFaceConfig(json)
  const extra = extraFeatures(config)
  if (extra.length > 0)
    throw new SyntaxError(
      `Cannot read config.json: this ${config.family} needs what a plain decoder lacks: ${extra.join(', ')}`,
    )
  const { vocabularySize, width, layers, heads, kvHeads, headSize, ffnWidth } = config
  const { normEps, ropeTheta, contextLength, tiedHead, eosId } = config
  return {
    ...{ vocabularySize, width, layers, heads, kvHeads, headSize, ffnWidth },
    ...{ normEps, ropeTheta, contextLength, tiedHead, eosId },
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
export function checkWeights(config: DecoderConfig, tensors: ReadonlyMap<string, { readonly shape: Shape }>): void {
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
