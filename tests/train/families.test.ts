import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { Random } from '../../src/core/random.ts'
import { linearShapes } from '../../src/formats/model-config.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { sum } from '../../src/kernels/reduce.ts'
import { Decoder, inputOf } from '../../src/models/decoder.ts'
import { openModel } from '../../src/models/open-model.ts'
import type { Step } from '../../src/runtime/step.ts'
import { finetune } from '../../src/train/finetune.ts'
import { finetuneDefaults } from '../../src/train/finetune-settings.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { familyConfigs, writeFamilyFolder, writeFamilyGguf } from '../models/family-files.ts'

const llama3 = {
  ...{ rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
  original_max_position_embeddings: 16,
}
/** Every feature of every family once: small enough that 24 tokens reach beyond the windows. */
const cases: Readonly<Record<string, object>> = {
  llama3: { ...familyConfigs.llama, rope_scaling: llama3 },
  mistral: { ...familyConfigs.llama, model_type: 'mistral', architectures: ['MistralForCausalLM'], sliding_window: 8 },
  qwen2: familyConfigs.qwen2,
  qwen3: familyConfigs.qwen3,
  gemma3: { ...familyConfigs.gemma3, sliding_window: 8, layer_types: ['sliding_attention', 'full_attention'] },
  phi3: { ...familyConfigs.phi3, partial_rotary_factor: 0.5 },
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-families-'))
  for (const [name, json] of Object.entries(cases)) writeFamilyFolder(join(folder, name), json)
})
afterAll(() => rm(folder, { recursive: true }))

test.each(Object.keys(cases))('%s: gradients of weights and adapters are the slopes of the loss', (name) =>
  withoutLeaks(async () => {
    await using files = await openModel(join(folder, name))
    using model = await Decoder.open(gpu, files.weights)
    const random = new Random(5)
    const ranks = Object.fromEntries(
      Array.from({ length: 2 }, (_, layer) => Object.keys(linearShapes(model.config)).map((key) => `${layer}.${key}`))
        .flat()
        .map((key) => [key, 4]),
    )
    using adapter = Adapter.create(gpu, 'slopes', model.config, ranks, random)
    const trained = new Map([...model.parameters, ...adapter.parameters])
    for (const tensor of trained.values()) {
      // Large enough that no part of the network hides behind another.
      const values = random.normals(tensor.size, tensor.shape.length === 1 ? 0.2 : 0.4)
      gpu.write(tensor, tensor.shape.length === 1 ? values.map((x) => 1 + x) : values)
      tensor.requiresGrad = true
    }
    const tokens = 24
    const draw = () => Array.from({ length: tokens }, () => random.integer(3))
    const [ids, targets] = [draw(), draw()]
    const loss = (step: Step) => {
      const hidden = model.hidden(step, step.upload('u32', [1, tokens], ids), { updates: adapter })
      return sum(step, model.losses(step, hidden, step.upload('u32', [1, tokens], targets)))
    }
    const gradients = new Map<string, Float32Array>()
    {
      using step = gpu.step()
      const slopes = step.backward(loss(step))
      for (const [key, tensor] of trained) gradients.set(key, await step.read(slopes.get(tensor)))
    }
    const value = async () => {
      using step = gpu.step()
      return await step.readNumber(step.withoutGradients(() => loss(step)))
    }
    for (const [key, tensor] of trained) {
      const before = await gpu.read(tensor)
      // Along the gradient itself the slope is its norm: what is wrong with it shows there.
      const gradient = gradients.get(key)!
      const norm = Math.hypot(...gradient)
      expect(norm, key).toBeGreaterThan(1e-3)
      const reach = Math.min(0.03 / norm, 0.007 * Math.hypot(...before))
      const at = async (sign: number) => {
        gpu.write(
          tensor,
          before.map((x, i) => x + (sign * reach * gradient[i]) / norm),
        )
        return value()
      }
      const slope = ((await at(1)) - (await at(-1))) / (2 * reach)
      gpu.write(tensor, before)
      expect(Math.abs(slope / norm - 1), `${name} ${key}: slope ${slope}, gradient ${norm}`).toBeLessThan(0.01)
    }
    for (const tensor of trained.values()) tensor.requiresGrad = false
  }),
)

test.each(Object.keys(cases))('%s: a run from the folder and from GGUF writes an adapter that PEFT reads', (name) =>
  withoutLeaks(async () => {
    const data = join(folder, 'data.jsonl')
    await writeFile(data, Array.from({ length: 12 }, () => '{"text":"abababab"}').join('\n'))
    const settings = {
      ...finetuneDefaults,
      ...{ rank: 4, alpha: 8, lr: 0.05, batch: 2, length: 32, steps: 6, evalShare: 0, base: 'nf4-double' as const },
    }
    const gguf = join(folder, `${name}.gguf`)
    // The writer of test files knows no scaling, and Mistral's GGUF files call themselves llama.
    const both = name !== 'llama3' && name !== 'mistral'
    if (both) await writeFamilyGguf(join(folder, name), gguf)
    for (const model of both ? [join(folder, name), gguf] : [join(folder, name)]) {
      const out = join(folder, `${name} out ${model.endsWith('gguf')}`)
      const result = await finetune({ gpu, model, data, out, settings, onProgress: () => {} })
      expect(result.last).toBeLessThan(result.first)
      const config = JSON.parse((await readFile(join(out, 'adapter_config.json'))).toString())
      const kinds =
        name === 'phi3'
          ? ['down_proj', 'gate_up_proj', 'o_proj', 'qkv_proj']
          : Object.keys(inputOf)
              .map((key) => key.split('.')[1])
              .sort()
      expect(config.target_modules).toEqual(kinds)
      const { tensors } = parseSafetensors(await readFile(join(out, 'adapter_model.safetensors')))
      expect(tensors.size).toBe(2 * 2 * kinds.length)

      // What was written computes what was trained: the loss of the next step would have been this.
      await using files = await openModel(model)
      using decoder = await Decoder.open(gpu, files.weights, { storage: 'nf4-double' })
      using adapter = Adapter.fromPeft(gpu, 'again', decoder.config, config, tensors)
      using step = gpu.step()
      const ids = files.tokenizer.encode('abababab')
      const row = step.upload('u32', [1, ids.length], ids)
      const targets = step.upload('u32', [1, ids.length], [...ids.slice(1), decoder.config.eosId])
      const losses = decoder.losses(step, decoder.hidden(step, row, { updates: adapter }), targets)
      const after = (await step.read(losses)).reduce((all, loss) => all + loss, 0) / ids.length
      expect(after).toBeLessThan(result.first)
      expect(Math.abs(after - result.last)).toBeLessThan(0.2 * result.first)
    }
  }),
)
