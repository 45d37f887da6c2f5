import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import '../../src/kernels/add.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { planShards, shardIndexName } from '../../src/formats/shards.ts'
import { cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'
import { Engine } from '../../src/inference/engine.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { openModel } from '../../src/models/open-model.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { tokenizer } from './family-files.ts'

// Tiny random models of every family against transformers' logits (tests/oracles/make-family-logits.py). llama.cpp gave
// the same logits for the GGUF files when they were made.

const golden = join(import.meta.dirname, '../oracles/golden/families')
const names = readdirSync(golden).flatMap((name) => (name.endsWith('.safetensors') ? [name.slice(0, -12)] : []))
const work = mkdtempSync(join(tmpdir(), 'nexus-families-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))

/** Logits (T, V) of the model at `path`: of one pass, and of a cache that is filled in pieces and then token by token. */
async function compare(path: string, ids: readonly number[], logits: Float32Array, window?: number): Promise<void> {
  await using files = await openModel(path)
  expect(files.config.slidingWindow).toBe(window)
  using model = await Decoder.open(gpu, files.weights)
  {
    using step = gpu.step()
    const made = model.forward(step, step.upload('u32', [1, ids.length], ids))
    expectClose('logits', await step.read(made), logits, 1e-4)
  }
  const vocabulary = logits.length / ids.length
  const best = (at: number) => {
    const row = logits.subarray(at * vocabulary, (at + 1) * vocabulary)
    return row.indexOf(Math.max(...row))
  }
  using engine = new Engine(model, { prefillTokens: 7, pageSize: 16 })
  for (const length of [1, 17, ids.length]) {
    for await (const [token] of engine.run([{ ids: ids.slice(0, length), maxTokens: 1 }]))
      expect(token!.id).toBe(best(length - 1))
  }
}

test('there is a golden model of every family', () => {
  expect(names.sort()).toEqual([
    ...['gemma3', 'llama-linear', 'llama-yarn', 'llama2', 'llama3', 'mistral', 'phi3', 'phi3-sliding'],
    ...['qwen2', 'qwen2-sliding', 'qwen3'],
  ])
})

test.runIf(gpu.capabilities.f16)('Gemma 3 in f16 keeps activations in f32: they pass the range of f16', () =>
  withoutLeaks(async () => {
    const { tensors, metadata } = parseSafetensors(new Uint8Array(readFileSync(join(golden, 'gemma3.safetensors'))))
    const ids = [...new Int32Array(tensors.get('ids')!.data.slice().buffer)]
    const folder = join(work, 'large')
    mkdirSync(folder)
    writeFileSync(join(folder, 'config.json'), metadata.config)
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
    // The norm behind the first FFN lifts the residual stream, as in the real models.
    const norm = 'model.layers.0.post_feedforward_layernorm.weight'
    const { shape } = tensors.get(norm)!
    const weights = new Map([...tensors].filter(([key]) => key.startsWith('model.')))
    weights.set(norm, cpuTensor('F32', shape, new Float32Array(shape[0]).fill(1e5)))
    writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(weights, { format: 'pt' }))
    await using files = await openModel(folder)
    await expect(Decoder.open(gpu, files.weights, { dtype: 'f16' })).rejects.toThrow(
      'Cannot run gemma3 with activations in f16',
    )
    using half = await Decoder.open(gpu, files.weights, { storage: 'f16' })
    using full = await Decoder.open(gpu, files.weights)
    expect(half.dtype).toBe('f32')
    expect(half.weightBytes).toBeLessThan(0.52 * full.weightBytes)
    using step = gpu.step()
    const [got, want] = [half, full].map((model) => model.forward(step, step.upload('u32', [1, ids.length], ids)))
    expectClose('logits', await step.read(got), await step.read(want), 5e-3)
  }),
)

test.each(names)('%s: a folder, whole and in shards, and a GGUF file give the logits of transformers', (name) =>
  withoutLeaks(async () => {
    const { tensors, metadata } = parseSafetensors(new Uint8Array(readFileSync(join(golden, `${name}.safetensors`))))
    const ids = [...new Int32Array(tensors.get('ids')!.data.slice().buffer)]
    const logits = toFloat32(tensors.get('logits')!)
    const weights = new Map([...tensors].filter(([key]) => key.startsWith('model.') || key.startsWith('lm_head.')))
    expect(weights.size).toBe(tensors.size - 2)
    const { sliding_window: size } = JSON.parse(metadata.config) as { sliding_window?: number | null }
    const window = /llama|qwen3|qwen2$/.test(name) ? undefined : (size ?? undefined)
    const folders = ['whole', 'shards'].map((kind) => join(work, `${name}-${kind}`))
    for (const folder of folders) {
      mkdirSync(folder)
      writeFileSync(join(folder, 'config.json'), metadata.config)
      writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
    }
    writeFileSync(join(folders[0], 'model.safetensors'), writeSafetensors(weights, { format: 'pt' }))
    const outlines = [...weights].map(([key, { dtype, shape }]) => ({ name: key, dtype, shape }))
    const { files, index } = planShards(outlines, 4000)
    expect(files.size).toBeGreaterThan(2)
    for (const [file, list] of files) {
      const part = new Map(list.map((outline) => [outline.name, weights.get(outline.name)!]))
      writeFileSync(join(folders[1], file), writeSafetensors(part, { format: 'pt' }))
    }
    writeFileSync(join(folders[1], shardIndexName), index!)
    for (const folder of folders) await compare(folder, ids, logits, window)
    const gguf = join(golden, `${name}.gguf`)
    if (existsSync(gguf)) await compare(gguf, ids, logits, window)
    else expect(name).toMatch(/mistral|sliding/)
  }),
)
