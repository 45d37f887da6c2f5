import { type GgufTensorData, type GgufTypedValue, writeGguf } from './gguf-write.ts'
import type { ModelConfig } from './model-family.ts'
import { foldScale, type LoraModule } from './peft.ts'
import { cpuTensor } from './tensor.ts'
import { ggufName, permuteHeads } from './tensor-recipes.ts'

/**
 * An adapter as llama.cpp loads it. Scales go into B; with one rank for all modules alpha is that rank, else it is 0,
 * which llama.cpp takes as "do not divide by the rank".
 * @param config of the base model: its family decides names and the order of q's and k's rows.
 * @throws RangeError for a family whose GGUF files fuse layers, or a module that the base lacks.
 * @see llama.cpp, src/llama-adapter.cpp and convert_lora_to_gguf.py.
 */
export function writeGgufLora(
  modules: readonly LoraModule[],
  config: ModelConfig,
  options: { readonly name?: string; readonly dtype?: 'F32' | 'F16' } = {},
): Uint8Array<ArrayBuffer> {
  const { dtype = 'F32' } = options
  if (config.family === 'phi3')
    throw new RangeError('Cannot write a GGUF adapter for phi3: its GGUF files fuse q, k, v and gate, up')
  if (modules.length === 0) throw new RangeError('Cannot write a GGUF adapter: it has no modules')
  const ranks = new Set(modules.map(({ rank }) => rank))
  const architecture = config.family === 'mistral' ? 'llama' : config.family
  const metadata = new Map<string, GgufTypedValue>([
    ['general.architecture', ['string', architecture]],
    ['general.type', ['string', 'adapter']],
    ...(options.name === undefined ? [] : ([['general.name', ['string', options.name]]] as [string, GgufTypedValue][])),
    ['adapter.type', ['string', 'lora']],
    ['adapter.lora.alpha', ['f32', ranks.size === 1 ? modules[0].rank : 0]],
  ])
  const tensors = new Map<string, GgufTensorData>()
  for (const module of modules) {
    const { rank } = module
    const name = ggufName(config, `${module.module}.weight`)
    const { a, b } = foldScale(module)
    const permuted = architecture === 'llama' && /\.self_attn\.[qk]_proj$/.test(module.module)
    const rows = permuted ? permuteHeads(b, rank, config.headSize) : b
    const put = (side: 'a' | 'b', shape: readonly [number, number], values: Float32Array) =>
      tensors.set(`${name}.lora_${side}`, { type: dtype, shape, data: cpuTensor(dtype, shape, values).data })
    put('a', [rank, module.a.shape[1]], a)
    put('b', [module.b.shape[0], rank], rows)
  }
  return writeGguf(metadata, tensors)
}
