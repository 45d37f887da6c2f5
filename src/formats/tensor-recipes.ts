import type { Shape } from '../core/shape.ts'
import { type LinearName, linearShapes } from './model-config.ts'
import type { ModelConfig } from './model-family.ts'

/** What is done to a file's tensor to make the model's. */
export type Transform =
  /** Rows `first` to `first + count` of a fused tensor. */
  | { readonly type: 'rows'; readonly first: number; readonly count: number }
  /** Undoes llama.cpp's order of q and k: in each head, file row 2j + s becomes row s · headSize / 2 + j. */
  | { readonly type: 'unpermute'; readonly headSize: number }
  /** Adds a number to each value. */
  | { readonly type: 'add'; readonly value: number }

/** Where one of the model's tensors comes from. */
export interface TensorRecipe {
  readonly shape: Shape
  /** Name in the file. */
  readonly from: string
  /** Shape in the file. */
  readonly fromShape: Shape
  readonly transform?: Transform
}

/** Kind of file that tensors come from. */
export type NamingScheme = 'hugging-face' | 'gguf'

const ggufNames: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
}
/** Gemma calls the norm before the FFN by its place, and the one behind attention by Llama's name for the other. */
const gemmaNorms: Readonly<Record<string, string>> = {
  post_attention_layernorm: 'post_attention_norm',
  pre_feedforward_layernorm: 'ffn_norm',
  post_feedforward_layernorm: 'post_ffw_norm',
}

/** The name that a GGUF file gives one of the model's tensors, its suffix (.weight, .bias) included. */
export function ggufName(config: ModelConfig, name: string): string {
  const [, layer, module, suffix] = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name) ?? []
  const short = (config.sandwichNorms ? gemmaNorms[module] : undefined) ?? ggufNames[module]
  if (!short) throw new RangeError(`Cannot name ${name} in GGUF: it is no tensor of a ${config.family} model`)
  return `${layer === undefined ? '' : `blk.${layer}.`}${short}.${suffix}`
}

/**
 * For each tensor of a model, in the order of the network and by Hugging Face's names for unfused layers: its shape,
 * where in a file it is, and what must be done to it.
 */
export function tensorRecipes(config: ModelConfig, scheme: NamingScheme): Map<string, TensorRecipe> {
  const { width, headSize, vocabularySize, family } = config
  const gguf = scheme === 'gguf'
  const recipes = new Map<string, TensorRecipe>()
  const plain = (name: string, shape: Shape, transform?: Transform) => {
    const from = gguf ? ggufName(config, name) : name
    recipes.set(name, { shape, from, fromShape: shape, ...(transform && { transform }) })
  }
  // Gemma multiplies by 1 + w; its GGUF files hold the sum already.
  const normTransform = family === 'gemma3' && !gguf ? ({ type: 'add', value: 1 } as const) : undefined
  const norm = (name: string, size: number) => plain(`${name}.weight`, [size], normTransform)
  const hasBias = (linear: LinearName) =>
    linear.startsWith('mlp.') ? config.mlpBias : linear.endsWith('o_proj') ? config.outputBias : config.qkvBias

  plain('model.embed_tokens.weight', [vocabularySize, width])
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`
    norm(`${prefix}.input_layernorm`, width)
    for (const [linear, [rows, columns]] of Object.entries(linearShapes(config))) {
      const fused = family === 'phi3' ? fusedPart(config, linear as LinearName) : undefined
      for (const [suffix, rest] of [
        ['weight', [columns]],
        ...(hasBias(linear as LinearName) ? [['bias', []]] : []),
      ] as [string, number[]][]) {
        const name = `${prefix}.${linear}.${suffix}`
        const permuted = gguf && (family === 'llama' || family === 'mistral') && /[qk]_proj$/.test(linear)
        if (!fused) plain(name, [rows, ...rest], permuted ? { type: 'unpermute', headSize } : undefined)
        else
          recipes.set(name, {
            shape: [rows, ...rest],
            from: gguf ? `blk.${layer}.${fused.gguf}.${suffix}` : `${prefix}.${fused.huggingFace}.${suffix}`,
            fromShape: [fused.rows, ...rest],
            transform: { type: 'rows', first: fused.first, count: rows },
          })
      }
    }
    if (config.queryKeyNorm) {
      norm(`${prefix}.self_attn.q_norm`, headSize)
      norm(`${prefix}.self_attn.k_norm`, headSize)
    }
    norm(`${prefix}.post_attention_layernorm`, width)
    if (config.sandwichNorms) {
      norm(`${prefix}.pre_feedforward_layernorm`, width)
      norm(`${prefix}.post_feedforward_layernorm`, width)
    }
  }
  norm('model.norm', width)
  if (!config.tiedHead) plain('lm_head.weight', [vocabularySize, width])
  return recipes
}

/** Where Phi-3's fused layers hold `linear`: q, k, v below each other, and gate above up. */
function fusedPart(config: ModelConfig, linear: LinearName) {
  const { heads, kvHeads, headSize, ffnWidth } = config
  const qkv = { huggingFace: 'self_attn.qkv_proj', gguf: 'attn_qkv', rows: (heads + 2 * kvHeads) * headSize }
  const gateUp = { huggingFace: 'mlp.gate_up_proj', gguf: 'ffn_up', rows: 2 * ffnWidth }
  const parts: Readonly<Partial<Record<LinearName, typeof qkv & { first: number }>>> = {
    'self_attn.q_proj': { ...qkv, first: 0 },
    'self_attn.k_proj': { ...qkv, first: heads * headSize },
    'self_attn.v_proj': { ...qkv, first: (heads + kvHeads) * headSize },
    'mlp.gate_proj': { ...gateUp, first: 0 },
    'mlp.up_proj': { ...gateUp, first: ffnWidth },
  }
  return parts[linear]
}

/**
 * llama.cpp's order of the rows of q and k, from Hugging Face's: in each head, row s · headSize / 2 + j goes to 2j + s.
 * @param values (rows, columns) row-major; rows a multiple of `headSize`.
 */
export function permuteHeads(values: Float32Array, columns: number, headSize: number): Float32Array<ArrayBuffer> {
  return moveRows(values, columns, headSize, false)
}

/** Hugging Face's order of the rows of q and k, from llama.cpp's: the inverse of {@link permuteHeads}. */
export function unpermuteHeads(values: Float32Array, columns: number, headSize: number): Float32Array<ArrayBuffer> {
  return moveRows(values, columns, headSize, true)
}

function moveRows(values: Float32Array, columns: number, headSize: number, undo: boolean): Float32Array<ArrayBuffer> {
  const rows = values.length / columns
  if (rows % headSize !== 0)
    throw new RangeError(`Cannot reorder ${rows} rows by heads of ${headSize}: they must be a multiple`)
  const y = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    const within = row % headSize
    const plain = row - within + (within % 2) * (headSize / 2) + Math.floor(within / 2)
    const [from, to] = undo ? [row, plain] : [plain, row]
    y.set(values.subarray(from * columns, (from + 1) * columns), to * columns)
  }
  return y
}
