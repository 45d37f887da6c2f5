import { parseHuggingFaceConfig } from './hugging-face-config.ts'
import type { Family, ModelConfig } from './model-family.ts'
import { type RopeScaling, ropeFrequencies } from './rope-scaling.ts'

const classes: Readonly<Record<Family, readonly [type: string, architecture: string]>> = {
  llama: ['llama', 'LlamaForCausalLM'],
  mistral: ['mistral', 'MistralForCausalLM'],
  qwen2: ['qwen2', 'Qwen2ForCausalLM'],
  qwen3: ['qwen3', 'Qwen3ForCausalLM'],
  gemma3: ['gemma3_text', 'Gemma3ForCausalLM'],
  phi3: ['phi3', 'Phi3ForCausalLM'],
}

/**
 * The config.json of a model of any family, which reads back as `config`.
 * @param divisors values of the tensor that a rope scaling of type 'tensor' names.
 * @throws SyntaxError naming what config.json has no words for.
 */
export function writeHuggingFaceConfig(config: ModelConfig, divisors?: ArrayLike<number>): Record<string, unknown> {
  const { family } = config
  const gemma = family === 'gemma3'
  const scaling = namedScaling(config, divisors)
  const slides = config.slidingLayers.includes(true)
  const everywhere = config.slidingLayers.every((sliding) => sliding)
  const [type, architecture] = classes[family]
  const json: Record<string, unknown> = {
    architectures: [architecture],
    model_type: type,
    vocab_size: config.vocabularySize,
    hidden_size: config.width,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headSize,
    intermediate_size: config.ffnWidth,
    [gemma ? 'hidden_activation' : 'hidden_act']: config.activation === 'silu' ? 'silu' : 'gelu_pytorch_tanh',
    rms_norm_eps: shortest(config.normEps),
    rope_theta: shortest(config.ropeTheta),
    max_position_embeddings: config.contextLength,
    tie_word_embeddings: config.tiedHead,
    bos_token_id: config.bosId ?? null,
    eos_token_id: config.eosIds.length > 1 ? config.eosIds : config.eosId,
    pad_token_id: config.padId ?? null,
    ...(family === 'qwen2' ? {} : { attention_bias: config.qkvBias }),
    ...(family === 'llama' && { mlp_bias: config.mlpBias }),
    ...(scaling && { rope_scaling: scalingJson(scaling) }),
    ...(gemma && {
      query_pre_attn_scalar: Math.round(config.attentionScale ** -2),
      rope_local_base_freq: shortest(config.localRopeTheta ?? config.ropeTheta),
    }),
    ...(family === 'phi3' && { partial_rotary_factor: config.rotaryDimensions / config.headSize }),
    ...(family !== 'llama' && { sliding_window: config.slidingWindow ?? null }),
    ...(/^qwen/.test(family) && { use_sliding_window: slides }),
    ...(slides && !everywhere && { layer_types: layerTypes(config) }),
    ...(gemma && { layer_types: layerTypes(config) }),
  }
  checkSame(config, scaling, parseHuggingFaceConfig(json))
  return json
}

const layerTypes = ({ slidingLayers }: ModelConfig) =>
  slidingLayers.map((sliding) => (sliding ? 'sliding_attention' : 'full_attention'))

/** The shortest decimal that is the same f32, where the number is one: GGUF says 9.99999974e-06 for 1e-5. */
function shortest(value: number): number {
  const short = Number(Math.fround(value).toPrecision(7))
  return Math.fround(short) === value ? short : value
}

function scalingJson(scaling: Exclude<RopeScaling, { type: 'tensor' }>): object {
  if (scaling.type === 'linear') return { rope_type: 'linear', factor: scaling.factor }
  if (scaling.type === 'llama3')
    return {
      rope_type: 'llama3',
      factor: scaling.factor,
      low_freq_factor: scaling.lowFrequencyFactor,
      high_freq_factor: scaling.highFrequencyFactor,
      original_max_position_embeddings: scaling.originalContext,
    }
  return {
    rope_type: 'yarn',
    factor: scaling.factor,
    original_max_position_embeddings: scaling.originalContext,
    beta_fast: scaling.betaFast,
    beta_slow: scaling.betaSlow,
    attention_factor: scaling.attentionFactor,
  }
}

/** The scaling without a tensor: Llama 3's is found again in the divisors that llama.cpp made of it. */
function namedScaling(
  { ropeScaling, ropeTheta, rotaryDimensions }: ModelConfig,
  divisors: ArrayLike<number> | undefined,
): Exclude<RopeScaling, { type: 'tensor' }> | undefined {
  if (ropeScaling?.type !== 'tensor') return ropeScaling
  const { inverse } = ropeFrequencies(ropeTheta, rotaryDimensions, ropeScaling, divisors)
  // Divisors are f32; the factor that they were made of is a short number.
  const factor = Number(Math.max(...Array.from(divisors!)).toPrecision(6))
  const contexts = Array.from({ length: 18 }, (_, i) => 2 ** (i + 3))
  const found = contexts
    .map((originalContext) => ({
      ...{ type: 'llama3' as const, factor, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext },
    }))
    .find((scaling) =>
      ropeFrequencies(ropeTheta, rotaryDimensions, scaling).inverse.every(
        (frequency, i) => Math.abs(frequency / inverse[i] - 1) < 1e-5,
      ),
    )
  if (!found)
    throw new SyntaxError(`Cannot write config.json: the rope divisors of ${ropeScaling.name} are not Llama 3’s`)
  return found
}

function checkSame(config: ModelConfig, scaling: RopeScaling | undefined, read: ModelConfig): void {
  const wanted: Readonly<Record<string, unknown>> = { ...config, ...(scaling && { ropeScaling: scaling }) }
  const found = read as unknown as Readonly<Record<string, unknown>>
  for (const key of new Set([...Object.keys(wanted), ...Object.keys(found)]))
    if (!same(wanted[key], found[key]))
      throw new SyntaxError(
        `Cannot write config.json: it has no words for this ${config.family} model’s ${key}, ${JSON.stringify(wanted[key])}`,
      )
}

function same(a: unknown, b: unknown): boolean {
  if (typeof a === 'number' && typeof b === 'number') return Math.fround(a) === Math.fround(b)
  return JSON.stringify(a) === JSON.stringify(b)
}
