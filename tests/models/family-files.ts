import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Random } from '../../src/core/random.ts'
import { sizeOf } from '../../src/core/shape.ts'
import { type GgufTensorData, type GgufTypedValue, writeGguf } from '../../src/formats/gguf-write.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { type CpuTensor, cpuTensor } from '../../src/formats/tensor.ts'
import { permuteHeads, tensorRecipes } from '../../src/formats/tensor-recipes.ts'
import { openModel } from '../../src/models/open-model.ts'

// Small models of every family, as folders and as the GGUF files that llama.cpp would make of them.

const sizes = {
  ...{ vocab_size: 3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 },
  ...{ intermediate_size: 64, max_position_embeddings: 64, head_dim: 8, eos_token_id: 2, bos_token_id: 1 },
}

/** config.json of a small model of each family, with what makes the family special. */
export const familyConfigs: Readonly<Record<string, object>> = {
  llama: { ...sizes, model_type: 'llama', architectures: ['LlamaForCausalLM'], rms_norm_eps: 1e-5 },
  qwen2: { ...sizes, model_type: 'qwen2', architectures: ['Qwen2ForCausalLM'], tie_word_embeddings: true },
  qwen3: { ...sizes, model_type: 'qwen3', architectures: ['Qwen3ForCausalLM'] },
  phi3: { ...sizes, model_type: 'phi3', architectures: ['Phi3ForCausalLM'], sliding_window: 16 },
  gemma3: {
    ...{ ...sizes, model_type: 'gemma3_text', architectures: ['Gemma3ForCausalLM'], tie_word_embeddings: true },
    ...{ sliding_window: 16, query_pre_attn_scalar: 8 },
  },
}

/** A tokenizer.json of three tokens. */
export const tokenizer = {
  ...{ version: '1.0', added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null },
  decoder: { type: 'ByteLevel' },
  model: { type: 'BPE', unk_token: null, vocab: { a: 0, b: 1, ab: 2 }, merges: [['a', 'b']] },
}

/** Writes a folder with random weights. */
export function writeFamilyFolder(folder: string, json: object, seed = 42): void {
  mkdirSync(folder, { recursive: true })
  const random = new Random(seed)
  const tensors = new Map<string, CpuTensor>()
  for (const { from, fromShape } of tensorRecipes(parseHuggingFaceConfig(json), 'hugging-face').values())
    if (!tensors.has(from)) tensors.set(from, cpuTensor('F32', fromShape, random.normals(sizeOf(fromShape), 0.1)))
  writeFileSync(join(folder, 'config.json'), JSON.stringify(json))
  writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(tensors, { format: 'pt' }))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ bos_token: 'b', eos_token: 'ab' }))
}

/** Writes the same model as GGUF. */
export async function writeFamilyGguf(folder: string, path: string): Promise<void> {
  await using model = await openModel(folder)
  const { config } = model
  const name = config.family
  const metadata = new Map<string, GgufTypedValue>([
    ['general.architecture', ['string', name]],
    [`${name}.embedding_length`, ['u32', config.width]],
    [`${name}.block_count`, ['u32', config.layers]],
    [`${name}.attention.head_count`, ['u32', config.heads]],
    [`${name}.attention.head_count_kv`, ['u32', config.kvHeads]],
    [`${name}.attention.key_length`, ['u32', config.headSize]],
    [`${name}.attention.value_length`, ['u32', config.headSize]],
    [`${name}.feed_forward_length`, ['u32', config.ffnWidth]],
    [`${name}.context_length`, ['u32', config.contextLength]],
    [`${name}.attention.layer_norm_rms_epsilon`, ['f32', config.normEps]],
    [`${name}.rope.freq_base`, ['f32', config.ropeTheta]],
    ...(config.slidingWindow
      ? ([[`${name}.attention.sliding_window`, ['u32', config.slidingWindow]]] as [string, GgufTypedValue][])
      : []),
    ['tokenizer.ggml.model', ['string', 'gpt2']],
    ['tokenizer.ggml.pre', ['string', 'gpt-2']],
    ['tokenizer.ggml.tokens', ['string', ['a', 'b', 'ab']]],
    ['tokenizer.ggml.merges', ['string', ['a b']]],
    ['tokenizer.ggml.token_type', ['i32', [1, 3, 1]]],
    ['tokenizer.ggml.eos_token_id', ['u32', 2]],
    ['tokenizer.ggml.bos_token_id', ['u32', 1]],
    ['tokenizer.ggml.add_bos_token', ['bool', true]],
    ['tokenizer.chat_template', ['string', '{{ messages[0].content }}']],
  ])
  const parts = new Map<string, { shape: readonly number[]; values: Float32Array[] }>()
  for (const [key, { from, fromShape, shape, transform }] of tensorRecipes(config, 'gguf')) {
    const values = await model.weights.read(key)
    const ordered = transform?.type === 'unpermute' ? permuteHeads(values, shape[1] ?? 1, config.headSize) : values
    const part = parts.get(from) ?? { shape: fromShape, values: [] }
    parts.set(from, { ...part, values: [...part.values, ordered] })
  }
  const tensors = new Map<string, GgufTensorData>()
  for (const [from, { shape, values }] of parts) {
    const all = Float32Array.from(values.flatMap((part) => [...part]))
    tensors.set(from, { type: 'F32', shape, data: cpuTensor('F32', shape, all).data })
  }
  writeFileSync(path, writeGguf(metadata, tensors))
}
