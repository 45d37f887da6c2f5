import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type GgufTensorData, type GgufTypedValue, writeGguf } from '../../src/formats/gguf-write.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { planShards, shardIndexName } from '../../src/formats/shards.ts'
import { cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'
import { permuteHeads, tensorRecipes } from '../../src/formats/tensor-recipes.ts'
import { openModel } from '../../src/models/open-model.ts'

const teacher = join(import.meta.dirname, '../../models/tiny-teacher')
const { tensors } = parseSafetensors(new Uint8Array(readFileSync(join(teacher, 'model.safetensors'))))
const work = mkdtempSync(join(tmpdir(), 'nexus-open-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))

test('a folder opens with its description, its tokenizer and its weights', async () => {
  await using model = await openModel(teacher)
  expect(model.config.family).toBe('llama')
  expect(model.tokenizer.encode('ab')).toHaveLength(2)
  expect(model.chat).toBeUndefined()
  expect([...model.weights.recipes.keys()].sort()).toEqual([...tensors.keys()].sort())
  for (const [name, tensor] of tensors) expect(await model.weights.read(name)).toEqual(toFloat32(tensor))
})

test('a sharded folder opens the same, with the template and the ends that lie beside it', async () => {
  const outlines = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
  const { files, index } = planShards(outlines, 100_000)
  expect(files.size).toBeGreaterThan(2)
  for (const [file, list] of files) {
    const part = new Map(list.map(({ name }) => [name, tensors.get(name)!]))
    writeFileSync(join(work, file), writeSafetensors(part, { format: 'pt' }))
  }
  writeFileSync(join(work, shardIndexName), index!)
  for (const name of ['config.json', 'tokenizer.json']) copyFileSync(join(teacher, name), join(work, name))
  writeFileSync(join(work, 'chat_template.jinja'), '{{ messages[0].content }}')
  writeFileSync(join(work, 'generation_config.json'), '{"eos_token_id": [3, 5]}')
  {
    await using model = await openModel(work)
    for (const [name, tensor] of tensors) expect(await model.weights.read(name)).toEqual(toFloat32(tensor))
    expect(model.config.eosIds).toEqual([3, 5])
    const ids = model.chat!.encode(model.tokenizer, [{ role: 'user', content: 'hi' }])
    expect(model.tokenizer.decode(ids)).toBe('hi')
  }
  const [first] = files.keys()
  writeFileSync(join(work, first), new Uint8Array(5))
  await expect(openModel(work)).rejects.toThrow(first)
  rmSync(join(work, first))
  await expect(openModel(work)).rejects.toThrow(SyntaxError)
})

test('the same model as GGUF gives the same weights', async () => {
  await using folder = await openModel(teacher)
  const { config } = folder
  const metadata = new Map<string, GgufTypedValue>([
    ['general.architecture', ['string', 'llama']],
    ['llama.embedding_length', ['u32', config.width]],
    ['llama.block_count', ['u32', config.layers]],
    ['llama.attention.head_count', ['u32', config.heads]],
    ['llama.attention.head_count_kv', ['u32', config.kvHeads]],
    ['llama.attention.key_length', ['u32', config.headSize]],
    ['llama.attention.value_length', ['u32', config.headSize]],
    ['llama.feed_forward_length', ['u32', config.ffnWidth]],
    ['llama.context_length', ['u32', config.contextLength]],
    ['llama.attention.layer_norm_rms_epsilon', ['f32', config.normEps]],
    ['llama.rope.freq_base', ['f32', config.ropeTheta]],
    ['tokenizer.ggml.model', ['string', 'gpt2']],
    ['tokenizer.ggml.pre', ['string', 'gpt-2']],
    ['tokenizer.ggml.tokens', ['string', ['a', 'b', 'ab']]],
    ['tokenizer.ggml.merges', ['string', ['a b']]],
    ['tokenizer.ggml.eos_token_id', ['u32', config.eosId]],
    ['tokenizer.chat_template', ['string', '{{ messages[0].content }}']],
  ])
  const written = new Map<string, GgufTensorData>()
  for (const [name, { from, shape, transform }] of tensorRecipes(config, 'gguf')) {
    const values = toFloat32(tensors.get(name)!)
    const ordered = transform ? permuteHeads(values, shape[1], config.headSize) : values
    written.set(from, { type: 'F32', shape, data: cpuTensor('F32', shape, ordered).data })
  }
  const path = join(work, 'teacher.gguf')
  writeFileSync(path, writeGguf(metadata, written))
  await using model = await openModel(path)
  const { normEps, ...sizes } = model.config
  expect(config).toMatchObject({ ...sizes, bosId: config.bosId })
  expect(normEps).toBeCloseTo(config.normEps, 10)
  for (const [name, tensor] of tensors) expect(await model.weights.read(name)).toEqual(toFloat32(tensor))
  expect(model.chat!.encode(model.tokenizer, [{ role: 'user', content: 'ab' }])).toEqual([2])

  writeFileSync(path, writeGguf(new Map([...metadata].slice(1)), written))
  await expect(openModel(path)).rejects.toThrow(`${path}: Cannot read the GGUF file's model: general.architecture`)
  await expect(openModel(join(work, 'missing.gguf'))).rejects.toThrow('missing.gguf')
})
