import * as z from 'zod'
import { checkSizes, type Family, families, familyTraits, type ModelConfig } from './model-family.ts'
import type { RopeScaling } from './rope-scaling.ts'

const size = z.number().int().positive()
const id = z.number().int().nonnegative()
const rope = z
  .object({
    rope_type: z.string().optional(),
    type: z.string().optional(),
    rope_theta: z.number().positive().optional(),
    factor: z.number().positive().optional(),
    low_freq_factor: z.number().positive().optional(),
    high_freq_factor: z.number().positive().optional(),
    original_max_position_embeddings: size.optional(),
    attention_factor: z.number().positive().nullish(),
    beta_fast: z.number().positive().nullish(),
    beta_slow: z.number().positive().nullish(),
    partial_rotary_factor: z.number().positive().max(1).optional(),
  })
  .loose()
type Rope = z.infer<typeof rope>
const schema = z.object({
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  intermediate_size: size,
  hidden_act: z.string().optional(),
  hidden_activation: z.string().nullish(),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().optional(),
  rope_local_base_freq: z.number().positive().optional(),
  rope_scaling: rope.nullish(),
  rope_parameters: z.record(z.string(), z.unknown()).nullish(),
  partial_rotary_factor: z.number().positive().max(1).optional(),
  max_position_embeddings: size,
  tie_word_embeddings: z.boolean().optional(),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  bos_token_id: id.nullish(),
  eos_token_id: z.union([id, z.array(id).nonempty()]).nullish(),
  pad_token_id: z.number().int().nullish(),
  use_sliding_window: z.boolean().default(false),
  sliding_window: size.nullish(),
  sliding_window_pattern: size.optional(),
  _sliding_window_pattern: size.optional(),
  max_window_layers: z.number().int().nonnegative().optional(),
  layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
  query_pre_attn_scalar: z.number().positive().optional(),
  attn_logit_softcapping: z.null().optional(),
  final_logit_softcapping: z.null().optional(),
  use_bidirectional_attention: z.literal(false).nullish(),
})
type Fields = z.infer<typeof schema>
type Fault = (reason: string) => SyntaxError

/** What the classes of transformers assume when config.json leaves a field out. */
const defaults: Readonly<Record<Family, Readonly<Record<string, unknown>>>> = {
  llama: { max_position_embeddings: 2048 },
  mistral: { max_position_embeddings: 131072, num_key_value_heads: 8, sliding_window: 4096 },
  qwen2: { max_position_embeddings: 32768, sliding_window: 4096, max_window_layers: 28 },
  qwen3: { max_position_embeddings: 32768, head_dim: 128, sliding_window: 4096, max_window_layers: 28 },
  gemma3: {
    ...{ vocab_size: 262208, head_dim: 256, num_attention_heads: 8, num_key_value_heads: 4, sliding_window: 4096 },
    ...{
      hidden_act: 'gelu_pytorch_tanh',
      max_position_embeddings: 131072,
      rope_theta: 1e6,
      query_pre_attn_scalar: 256,
    },
    ...{ tie_word_embeddings: true, rope_local_base_freq: 10_000, eos_token_id: 1, bos_token_id: 2 },
  },
  phi3: { max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
}

/**
 * Reads a Hugging Face config.json of any family of {@link families}; the text part, where a model has several.
 * @param json the parsed file.
 * @throws SyntaxError naming the field that is missing, wrong, contradicts another or is not supported.
 */
export function parseHuggingFaceConfig(json: unknown): ModelConfig {
  const fault: Fault = (reason) => new SyntaxError(`Cannot read config.json: ${reason}`)
  const whole = (typeof json === 'object' ? json : undefined) as Record<string, unknown> | null | undefined
  const part = whole?.model_type === 'gemma3' ? whole.text_config : undefined
  const given = (typeof part === 'object' && part !== null ? { ...whole, ...part } : whole) as typeof whole
  const type = given?.model_type
  const family = families.find((name) => name === (type === 'gemma3_text' ? 'gemma3' : type))
  if (!family)
    throw fault(`model_type is ${JSON.stringify(type)}; supported are ${families.join(', ')} and gemma3_text`)
  const present = Object.entries(given!).filter(([, value]) => value !== undefined)
  const result = schema.safeParse({ ...defaults[family], ...Object.fromEntries(present) })
  if (!result.success) {
    const [issue] = result.error.issues
    throw fault(`${issue.path.join('.')}: ${issue.message}`)
  }
  const c = result.data
  if (c.head_dim == null && c.hidden_size % c.num_attention_heads !== 0)
    throw fault(`hidden_size ${c.hidden_size} is not a multiple of num_attention_heads ${c.num_attention_heads}`)
  const headSize = c.head_dim ?? c.hidden_size / c.num_attention_heads
  const { theta, localTheta, scaling, rotaryFraction } = readRope(family, c, fault)
  const eosIds = c.eos_token_id == null ? [0] : [c.eos_token_id].flat()
  const slidingLayers = slidingLayersOf(family, c, fault)
  const traits = familyTraits(family, c.hidden_size)
  const wanted = traits.activation === 'silu' ? ['silu'] : ['gelu_pytorch_tanh']
  const act = c.hidden_activation ?? c.hidden_act ?? wanted[0]
  if (!wanted.includes(act)) throw fault(`hidden_act is ${act}; supported for ${family} is ${wanted[0]}`)
  const config: ModelConfig = {
    ...{ family, vocabularySize: c.vocab_size, width: c.hidden_size, layers: c.num_hidden_layers },
    ...{ heads: c.num_attention_heads, kvHeads: c.num_key_value_heads ?? c.num_attention_heads, headSize },
    ...{ ffnWidth: c.intermediate_size, normEps: c.rms_norm_eps, ropeTheta: theta, eosId: eosIds[0], eosIds },
    ...{ contextLength: c.max_position_embeddings, tiedHead: c.tie_word_embeddings ?? false, ...traits },
    ...(c.bos_token_id == null ? {} : { bosId: c.bos_token_id }),
    ...(c.pad_token_id == null || c.pad_token_id < 0 ? {} : { padId: c.pad_token_id }),
    attentionScale: (family === 'gemma3' ? c.query_pre_attn_scalar! : headSize) ** -0.5,
    rotaryDimensions: Math.floor(headSize * rotaryFraction),
    ...(scaling && { ropeScaling: scaling }),
    ...(localTheta !== undefined && { localRopeTheta: localTheta }),
    ...(slidingLayers.includes(true) && { slidingWindow: c.sliding_window! }),
    slidingLayers,
    qkvBias: family === 'qwen2' || c.attention_bias,
    outputBias: family !== 'qwen2' && c.attention_bias,
    mlpBias: family === 'llama' && c.mlp_bias,
  }
  checkSizes(config, fault)
  return config
}

function slidingLayersOf(family: Family, c: Fields, fault: Fault): boolean[] {
  const layers = c.num_hidden_layers
  if (layers > 1024) throw fault(`num_hidden_layers is ${layers}; at most 1024 are read`)
  if (c.layer_types) {
    if (c.layer_types.length !== layers)
      throw fault(`layer_types has ${c.layer_types.length} entries, num_hidden_layers is ${layers}`)
    const sliding = c.layer_types.map((type) => type === 'sliding_attention')
    if (sliding.includes(true) && !c.sliding_window)
      throw fault('layer_types has sliding layers, sliding_window is null')
    return sliding
  }
  const pattern = c.sliding_window_pattern ?? c._sliding_window_pattern ?? 6
  const slides: Readonly<Record<Family, (layer: number) => boolean>> = {
    llama: () => false,
    mistral: () => true,
    phi3: () => true,
    qwen2: (layer) => c.use_sliding_window && layer >= c.max_window_layers!,
    qwen3: (layer) => c.use_sliding_window && layer >= c.max_window_layers!,
    gemma3: (layer) => (layer + 1) % pattern !== 0,
  }
  return Array.from({ length: layers }, (_, layer) => c.sliding_window != null && slides[family](layer))
}

interface RopeFields {
  readonly theta: number
  readonly localTheta?: number
  readonly scaling?: RopeScaling
  readonly rotaryFraction: number
}

/** Theta and scaling: transformers 5 keeps them in rope_parameters (for Gemma by kind of layer), 4 beside each other. */
function readRope(family: Family, c: Fields, fault: Fault): RopeFields {
  const parse = (value: unknown, name: string): Rope => {
    const result = rope.safeParse(value)
    if (!result.success)
      throw fault(`${name}.${result.error.issues[0].path.join('.')}: ${result.error.issues[0].message}`)
    return result.data
  }
  const parameters = c.rope_parameters ?? {}
  const byKind = 'full_attention' in parameters
  const full = byKind
    ? parse(parameters.full_attention, 'rope_parameters.full_attention')
    : parse(parameters, 'rope_parameters')
  const local = byKind ? parse(parameters.sliding_attention ?? {}, 'rope_parameters.sliding_attention') : undefined
  const localTheta = family === 'gemma3' ? (local?.rope_theta ?? c.rope_local_base_freq) : undefined
  return {
    theta: c.rope_theta !== undefined && full.rope_theta === undefined ? c.rope_theta : (full.rope_theta ?? 10_000),
    ...(localTheta !== undefined && { localTheta }),
    scaling: readScaling(c.rope_scaling ?? full, c, fault),
    rotaryFraction: full.partial_rotary_factor ?? c.partial_rotary_factor ?? 1,
  }
}

function readScaling(r: Rope, c: Fields, fault: Fault): RopeScaling | undefined {
  const type = r.rope_type ?? r.type ?? 'default'
  if (type === 'default') return undefined
  const need = (name: 'factor' | 'low_freq_factor' | 'high_freq_factor'): number => {
    const value = r[name]
    if (value === undefined) throw fault(`rope_scaling of type ${type} lacks ${name}`)
    return value
  }
  const originalContext = r.original_max_position_embeddings ?? c.max_position_embeddings
  if (type === 'linear') return { type, factor: need('factor') }
  if (type === 'llama3') {
    const [low, high] = [need('low_freq_factor'), need('high_freq_factor')]
    if (low >= high) throw fault(`low_freq_factor ${low} is not below high_freq_factor ${high}`)
    return { type, factor: need('factor'), lowFrequencyFactor: low, highFrequencyFactor: high, originalContext }
  }
  if (type !== 'yarn') throw fault(`rope_scaling is of type ${type}; supported are linear, llama3 and yarn`)
  for (const key of ['mscale', 'mscale_all_dim'])
    if (r[key] !== undefined) throw fault(`rope_scaling of type yarn has ${key}, which is not supported`)
  if (r.truncate === false) throw fault('rope_scaling of type yarn has truncate false, which is not supported')
  return { ...yarn(need('factor'), originalContext), ...yarnOptions(r) }
}

function yarnOptions(r: Rope): object {
  return {
    ...(r.beta_fast != null && { betaFast: r.beta_fast }),
    ...(r.beta_slow != null && { betaSlow: r.beta_slow }),
    ...(r.attention_factor != null && { attentionFactor: r.attention_factor }),
  }
}

/** A yarn scaling with the betas and the attention factor of its paper. */
export function yarn(factor: number, originalContext: number): Extract<RopeScaling, { type: 'yarn' }> {
  const attentionFactor = factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1
  return { type: 'yarn', factor, originalContext, betaFast: 32, betaSlow: 1, attentionFactor }
}
