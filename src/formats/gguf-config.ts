import type { Gguf } from './gguf.ts'
import { yarn } from './hugging-face-config.ts'
import { checkSizes, type Family, familyTraits, type ModelConfig } from './model-family.ts'
import type { RopeScaling } from './rope-scaling.ts'

/** Architectures of GGUF files that are read. Mistral's files say llama. */
const architectures: Readonly<Record<string, Family>> = {
  llama: 'llama',
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  gemma3: 'gemma3',
  phi3: 'phi3',
}

/**
 * Reads the description of a decoder from a GGUF file's metadata and tensor table.
 * @throws SyntaxError naming the key that is missing, wrong or not supported.
 */
export function parseGgufConfig({ metadata, tensors }: Gguf): ModelConfig {
  const fault = (reason: string) => new SyntaxError(`Cannot read the GGUF file's model: ${reason}`)
  const architecture = metadata.get('general.architecture')
  const family = typeof architecture === 'string' ? architectures[architecture] : undefined
  if (!family || !Object.hasOwn(architectures, architecture as string))
    throw fault(
      `general.architecture is ${JSON.stringify(architecture)}; supported are ${Object.keys(architectures).join(', ')}`,
    )
  const find = (key: string): number | undefined => {
    const value = metadata.get(key)
    if (value !== undefined && (typeof value !== 'number' || !Number.isFinite(value)))
      throw fault(`${key} must be one number`)
    return value as number | undefined
  }
  const own = (key: string) => find(`${architecture}.${key}`)
  const need = (key: string): number => {
    const value = own(key)
    if (value === undefined) throw fault(`${architecture}.${key} is missing`)
    return value
  }
  const embedding = tensors.get('token_embd.weight')
  if (embedding?.shape.length !== 2) throw fault('it holds no matrix token_embd.weight')
  if ((own('expert_count') ?? 0) > 0) throw fault('it is a mixture of experts, which is not supported')
  for (const key of ['attn_logit_softcapping', 'final_logit_softcapping'])
    if (own(key)) throw fault(`${architecture}.${key} is not supported`)

  const width = need('embedding_length')
  const heads = need('attention.head_count')
  const layers = need('block_count')
  const headSize = own('attention.key_length') ?? width / heads
  if ((own('attention.value_length') ?? headSize) !== headSize) throw fault('its keys and values differ in size')
  const has = (name: string) => tensors.has(`blk.0.${name}`)
  const traits = familyTraits(family, width)
  const window = own('attention.sliding_window') || undefined
  const patternKey = `${architecture}.attention.sliding_window_pattern`
  const pattern = metadata.get(patternKey) ?? 6
  if (typeof pattern !== 'number' && !Array.isArray(pattern)) throw fault(`${patternKey} must be a number or an array`)
  const slides = (layer: number) =>
    typeof pattern !== 'number'
      ? pattern[layer] === true
      : family !== 'llama' && (family !== 'gemma3' || (layer + 1) % pattern !== 0)
  const slidingLayers = Array.from(
    { length: Number.isInteger(layers) && layers > 0 && layers <= 1024 ? layers : 0 },
    (_, layer) => window !== undefined && family !== 'qwen2' && family !== 'qwen3' && slides(layer),
  )
  // Gemma 3 27B alone scales by the width of a head in the residual stream; its 62 layers tell it, as in llama.cpp.
  const attentionScale = (family === 'gemma3' && layers === 62 ? width / heads : headSize) ** -0.5
  const eosId = find('tokenizer.ggml.eos_token_id') ?? 0
  const eotId = find('tokenizer.ggml.eot_token_id')
  const bosId = find('tokenizer.ggml.bos_token_id')
  const padId = find('tokenizer.ggml.padding_token_id')
  const scaling = readScaling(own, need, metadata.get(`${architecture}.rope.scaling.type`), tensors, fault)
  const config: ModelConfig = {
    ...{ family, width, heads, layers, headSize, vocabularySize: embedding.shape[0], ...traits },
    ...{ kvHeads: own('attention.head_count_kv') ?? heads, ffnWidth: need('feed_forward_length') },
    ...{ normEps: need('attention.layer_norm_rms_epsilon'), ropeTheta: own('rope.freq_base') ?? 10_000 },
    ...{ contextLength: need('context_length'), tiedHead: !tensors.has('output.weight'), eosId },
    eosIds: eotId === undefined || eotId === eosId ? [eosId] : [eosId, eotId],
    ...(bosId !== undefined && { bosId }),
    ...(padId !== undefined && { padId }),
    attentionScale,
    rotaryDimensions: own('rope.dimension_count') ?? headSize,
    ...(scaling && { ropeScaling: scaling }),
    ...(family === 'gemma3' && { localRopeTheta: own('rope.freq_base_swa') ?? 10_000 }),
    ...(slidingLayers.includes(true) && { slidingWindow: window }),
    slidingLayers,
    qkvBias: has('attn_q.bias') || has('attn_qkv.bias'),
    outputBias: has('attn_output.bias'),
    mlpBias: has('ffn_up.bias'),
  }
  checkSizes(config, fault)
  return config
}

function readScaling(
  own: (key: string) => number | undefined,
  need: (key: string) => number,
  type: unknown,
  tensors: Gguf['tensors'],
  fault: (reason: string) => SyntaxError,
): RopeScaling | undefined {
  if (tensors.has('rope_factors_long.weight')) throw fault('its rope scaling is longrope, which is not supported')
  if (tensors.has('rope_freqs.weight')) return { type: 'tensor', name: 'rope_freqs.weight' }
  if (type === undefined) {
    const factor = own('rope.scale_linear')
    return factor === undefined || factor === 1 ? undefined : { type: 'linear', factor }
  }
  if (type === 'none') return undefined
  if (type === 'linear') return { type, factor: need('rope.scaling.factor') }
  if (type !== 'yarn') throw fault(`its rope scaling is ${String(type)}; supported are none, linear and yarn`)
  const scaling = yarn(
    need('rope.scaling.factor'),
    own('rope.scaling.original_context_length') ?? need('context_length'),
  )
  return { ...scaling, attentionFactor: (own('rope.scaling.attn_factor') ?? 1) * scaling.attentionFactor }
}
