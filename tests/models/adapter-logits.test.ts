import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import '../../src/kernels/add.ts'
import { Adapter } from '../../src/adapters/adapter.ts'
import { memorySource } from '../../src/formats/byte-source.ts'
import { writeGgufLora } from '../../src/formats/gguf-lora.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { readPeft, writePeft } from '../../src/formats/peft.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { SafetensorsFiles } from '../../src/formats/shards.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { ModelWeights } from '../../src/formats/weights.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { tinyAdapter } from './tiny-adapters.ts'

// Adapters on the tiny golden models against the logits of PEFT (tests/oracles/make-adapters.py). llama.cpp gave the same
// logits with the GGUF adapters when they were made.

const golden = join(import.meta.dirname, '../oracles/golden')
const bytes = (name: string) => new Uint8Array(readFileSync(join(golden, name)))
const text = (name: string) => readFileSync(join(golden, name), 'utf8')
const family = (name: string) => parseSafetensors(bytes(`families/${name}.safetensors`))
const names = ['llama3', 'qwen2', 'gemma3']

test.each(names.flatMap((name) => ['peft', 'native', 'uniform'].map((kind) => [name, kind])))(
  '%s with the %s adapter: the logits of PEFT',
  (name, kind) =>
    withoutLeaks(async () => {
      const { tensors, metadata } = family(name)
      const config = parseHuggingFaceConfig(JSON.parse(metadata.config))
      const files = await SafetensorsFiles.single(memorySource(bytes(`families/${name}.safetensors`)))
      using model = await Decoder.open(gpu, new ModelWeights(config, files.weights()))
      const folder = `adapters/${name}-${kind}`
      const parts = parseSafetensors(bytes(`${folder}/adapter_model.safetensors`)).tensors
      using adapter = Adapter.fromPeft(gpu, kind, config, JSON.parse(text(`${folder}/adapter_config.json`)), parts)
      const ids = new Int32Array(tensors.get('ids')!.data.slice().buffer)
      const want = toFloat32(parseSafetensors(bytes(`adapters/${name}.safetensors`)).tensors.get(kind)!)
      using step = gpu.step()
      const made = model.forward(step, step.upload('u32', [1, ids.length], ids), { updates: adapter })
      expectClose('logits', await step.read(made), want, 1e-4)
      const plain = toFloat32(tensors.get('logits')!)
      const changes = want.reduce((most, value, i) => Math.max(most, Math.abs(value - plain[i])), 0)
      expect(changes).toBeGreaterThan(1)
    }),
)

test.each(names)('%s: an adapter with a rank for each module is written as PEFT and llama.cpp read it', (name) => {
  const config = parseHuggingFaceConfig(JSON.parse(family(name).metadata.config))
  const modules = tinyAdapter(config)
  expect(new Set(modules.map(({ rank }) => rank)).size).toBe(4)
  for (const ranks of ['native', 'uniform'] as const) {
    const folder = `adapters/${name}-${ranks}`
    const written = writePeft(modules, { ranks, layers: config.layers })
    expect(writeSafetensors(written.tensors, { format: 'pt' })).toEqual(bytes(`${folder}/adapter_model.safetensors`))
    expect(written.config).toBe(text(`${folder}/adapter_config.json`))
  }
  expect(writeGgufLora(modules, config)).toEqual(bytes(`adapters/${name}.gguf`))
  // What PEFT saved is written again byte for byte, however its tensors are ordered.
  const saved = bytes(`adapters/${name}-peft/adapter_model.safetensors`)
  const { tensors } = parseSafetensors(saved)
  expect(writeSafetensors(new Map([...tensors].reverse()), { format: 'pt' })).toEqual(saved)
  expect(readPeft(JSON.parse(text(`adapters/${name}-peft/adapter_config.json`)), tensors).length).toBeGreaterThan(8)
})
