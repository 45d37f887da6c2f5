import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { memorySource } from '../../src/formats/byte-source.ts'
import { parseGguf } from '../../src/formats/gguf.ts'
import { parseGgufConfig } from '../../src/formats/gguf-config.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { parseModelConfig } from '../../src/formats/model-config.ts'
import { extraFeatures } from '../../src/formats/model-family.ts'
import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'
import { permuteHeads, tensorRecipes, unpermuteHeads } from '../../src/formats/tensor-recipes.ts'
import { ggufWeights, ModelWeights, type WeightFile } from '../../src/formats/weights.ts'

interface Case {
  readonly config: Record<string, unknown>
  readonly shapes: Record<string, number[]>
  readonly gguf: Record<string, string>
  readonly frequencies: Record<string, number[]>
  readonly attention: Record<string, number>
  readonly sliding: boolean[]
}
const cases = JSON.parse(readFileSync(join(import.meta.dirname, '../oracles/golden/families.json'), 'utf8')) as Record<
  string,
  Case
>

test.each(Object.entries(cases))(
  '%s: tensors, their GGUF names and rotations are those of transformers',
  (name, golden) => {
    const config = parseHuggingFaceConfig(golden.config)
    expect(config.family).toBe(name.split('-')[0])

    const shown = (key: string) => !key.includes('.layers.') || key.includes('.layers.7.')
    const shapes = new Map<string, number[]>()
    for (const [key, { from, fromShape }] of tensorRecipes(config, 'hugging-face'))
      if (shown(key)) shapes.set(from, [...fromShape])
    expect(Object.fromEntries([...shapes].sort())).toEqual(Object.fromEntries(Object.entries(golden.shapes).sort()))
    const names = [...tensorRecipes(config, 'gguf')].filter(([key]) => shown(key)).map(([, { from }]) => from)
    expect([...new Set(names)].sort()).toEqual(Object.values(golden.gguf).sort())

    const compare = (got: ReturnType<typeof ropeFrequencies>, kind: string) => {
      const want = golden.frequencies[`${kind}inv_freq`]
      expect(got.inverse.length).toBe(want.length)
      for (const [i, value] of want.entries()) expect(Math.abs(got.inverse[i] / value - 1)).toBeLessThan(1e-6)
      expect(got.attentionFactor).toBeCloseTo(golden.attention[`${kind}attention_scaling`], 12)
    }
    const full = ropeFrequencies(config.ropeTheta, config.rotaryDimensions, config.ropeScaling)
    if (config.localRopeTheta === undefined) compare(full, '')
    else {
      compare(full, 'full_attention_')
      compare(ropeFrequencies(config.localRopeTheta, config.rotaryDimensions), 'sliding_attention_')
    }
    if (golden.sliding.length > 0) expect(config.slidingLayers).toEqual(golden.sliding)
  },
)

test('the way transformers 4 wrote rope and Gemma’s layers reads the same', () => {
  const old = (name: string, changes: object) => {
    const { rope_parameters: _, layer_types: __, ...rest } = cases[name].config
    return parseHuggingFaceConfig({ ...rest, ...changes })
  }
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 }
  expect(old('llama-3', { rope_theta: 500000, rope_scaling: { ...llama3, rope_type: 'llama3' } })).toEqual(
    parseHuggingFaceConfig(cases['llama-3'].config),
  )
  const gemma = { rope_theta: 1e6, rope_local_base_freq: 1e4, sliding_window_pattern: 6 }
  expect(old('gemma3', gemma)).toEqual(parseHuggingFaceConfig(cases.gemma3.config))
  const { model_type: _, ...text } = cases.gemma3.config
  expect(parseHuggingFaceConfig({ model_type: 'gemma3', text_config: text })).toEqual(
    parseHuggingFaceConfig(cases.gemma3.config),
  )
  expect(old('qwen2-sliding', {}).slidingLayers).toEqual(cases['qwen2-sliding'].sliding)
})

test('what a family needs beyond plain Llama is named, and a plain decoder refuses it', () => {
  const extra = (name: string) => extraFeatures(parseHuggingFaceConfig(cases[name].config))
  expect(extra('llama')).toEqual([])
  expect(extra('llama-3')).toEqual(['rope scaling'])
  expect(extra('llama-biased')).toEqual(['biases of q, k and v', 'bias of the output projection', 'biases of the FFN'])
  expect(extra('mistral')).toEqual(['sliding window'])
  expect(extraFeatures(parseHuggingFaceConfig(cases.mistral.config), 64)).toEqual([])
  expect(extra('qwen2')).toEqual(['biases of q, k and v'])
  expect(extra('qwen3')).toEqual(['norms of q and k'])
  expect(extra('gemma3')).toEqual([
    ...['gelu-tanh activation', 'attention scale', 'embedding scale', 'a theta of its own for sliding layers'],
    ...['sliding window', 'norms of q and k', 'sandwich norms'],
  ])
  expect(extra('phi3-partial')).toEqual(['partial rotation'])
  expect(() => parseModelConfig(cases.qwen3.config)).toThrow('this qwen3 needs what a plain decoder lacks: norms of q')
  expect(parseModelConfig(cases.llama.config)).toEqual({
    ...{ vocabularySize: 64, width: 32, layers: 8, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 48, normEps: 1e-6 },
    ...{ ropeTheta: 1e5, contextLength: 256, tiedHead: true, eosId: 2 },
  })
})

test.each([
  [{ model_type: 'mamba' }, 'model_type is "mamba"; supported are llama, mistral, qwen2, qwen3, gemma3, phi3'],
  [{ model_type: '__proto__' }, 'model_type is "__proto__"'],
  [{ hidden_size: undefined }, 'hidden_size'],
  [{ hidden_size: -1 }, 'hidden_size'],
  [{ num_hidden_layers: 1e9 }, 'at most 1024'],
  [{ num_key_value_heads: 3 }, '4 heads are not a multiple of the 3'],
  [{ head_dim: 6 }, 'not a multiple of 4'],
  [{ head_dim: null, hidden_size: 33 }, 'hidden_size 33 is not a multiple'],
  [{ hidden_act: 'relu' }, 'hidden_act is relu; supported for llama is silu'],
  [{ rope_scaling: { type: 'longrope', factor: 2 } }, 'of type longrope; supported are linear, llama3 and yarn'],
  [{ rope_scaling: { type: 'linear' } }, 'lacks factor'],
  [{ rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 } }, 'not below'],
  [{ eos_token_id: 64 }, 'the id of the end token, 64'],
  [{ layer_types: ['full_attention'] }, 'layer_types has 1 entries'],
  [{ final_logit_softcapping: 30 }, 'final_logit_softcapping'],
])('config.json with %j is refused', (changes, reason) => {
  const config = { ...cases.llama.config, ...changes }
  expect(() => parseHuggingFaceConfig(config)).toThrow(SyntaxError)
  expect(() => parseHuggingFaceConfig(config)).toThrow(reason)
})

test.each([null, undefined, 1, 'x', []])('%j is no config.json', (json) => {
  expect(() => parseHuggingFaceConfig(json)).toThrow(SyntaxError)
})

test('a GGUF file without a model says so', () => {
  const small = new Uint8Array(readFileSync(join(import.meta.dirname, '../oracles/golden/small.gguf')))
  expect(() => parseGgufConfig(parseGguf(small))).toThrow('no matrix token_embd.weight')
  const gguf = { ...parseGguf(small), metadata: new Map([['general.architecture', 'constructor']]) }
  expect(() => parseGgufConfig(gguf)).toThrow('"constructor"; supported are llama, qwen2, qwen3, gemma3, phi3')
})

test('the heads of llama.cpp’s q and k are put in order, and back', () => {
  // Two heads of four rows, two columns: llama.cpp interleaves the halves of a head.
  const theirs = Float32Array.of(0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7)
  const ours = Float32Array.of(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7)
  expect(unpermuteHeads(theirs, 2, 4)).toEqual(ours)
  expect(permuteHeads(ours, 2, 4)).toEqual(theirs)
  expect(() => permuteHeads(ours, 2, 3)).toThrow('they must be a multiple')
})

/** A file whose element i of a tensor is i, so that what is read tells where it came from. */
function counting(scheme: WeightFile['scheme'], shapes: Map<string, readonly number[]>): WeightFile {
  return {
    scheme,
    shapes,
    async rows(name, first, count) {
      const columns = shapes.get(name)!.at(-1)!
      return Float32Array.from({ length: count * columns }, (_, i) => first * columns + i)
    },
  }
}

test('weights are split, put in order and offset as they are read, windows of rows too', async () => {
  const open = (name: string, scheme: WeightFile['scheme'], prefix = '') => {
    const config = parseHuggingFaceConfig(cases[name].config)
    const shapes = new Map([...tensorRecipes(config, scheme).values()].map((r) => [prefix + r.from, r.fromShape]))
    return new ModelWeights(config, counting(scheme, shapes))
  }
  const phi = open('phi3', 'hugging-face')
  const columns = 32
  expect((await phi.read('model.layers.3.self_attn.k_proj.weight'))[0]).toBe(32 * columns)
  expect((await phi.read('model.layers.3.self_attn.v_proj.weight', 5, 2))[0]).toBe((48 + 5) * columns)
  expect((await phi.read('model.layers.3.mlp.up_proj.weight')).length).toBe(48 * columns)
  expect((await phi.read('model.layers.3.mlp.up_proj.weight'))[0]).toBe(48 * columns)

  const gemma = open('gemma3', 'hugging-face', 'language_model.')
  expect([...(await gemma.read('model.norm.weight', 30))]).toEqual([31, 32])
  expect((await open('gemma3', 'gguf').read('model.norm.weight', 30))[0]).toBe(30)

  const llama = open('llama-biased', 'gguf')
  expect([...(await llama.read('model.layers.0.self_attn.q_proj.bias', 3, 6))]).toEqual([6, 1, 3, 5, 7, 8])
  const k = await llama.read('model.layers.0.self_attn.k_proj.weight')
  expect(await llama.read('model.layers.0.self_attn.k_proj.weight', 7, 2)).toEqual(k.slice(7 * columns, 9 * columns))
  expect([...(await llama.read('model.layers.0.self_attn.v_proj.bias', 0, 3))]).toEqual([0, 1, 2])
  await expect(llama.read('model.norm.weight', 30, 3)).rejects.toThrow('rows 30 to 33 of model.norm.weight: it has 32')
  await expect(llama.read('nothing')).rejects.toThrow('no such tensor')

  const config = parseHuggingFaceConfig(cases.llama.config)
  expect(() => new ModelWeights(config, counting('gguf', new Map()))).toThrow('needs the tensor token_embd.weight')
  const wrong = new Map([['token_embd.weight', [2, 2]]])
  expect(() => new ModelWeights(config, counting('gguf', wrong))).toThrow('must be [64,32], the file has [2,2]')
})

test('tensors of a GGUF file are found by its own names', async () => {
  const small = new Uint8Array(readFileSync(join(import.meta.dirname, '../oracles/golden/small.gguf')))
  const file = ggufWeights(memorySource(small), parseGguf(small))
  expect(file.shapes.get('packed')).toEqual([3, 64])
  expect([...(await file.rows('vector', 0, 1))]).toEqual([0, 1, 2, 3, 4])
})
