import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { zipSync } from 'fflate'
import { expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { InterruptedError } from '../../src/core/errors.ts'
import { parseModelConfig } from '../../src/formats/model-config.ts'
import { readPeftZip, writePeftZip } from '../../src/formats/peft-zip.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { loadTokenizer } from '../../src/formats/tokenizer.ts'
import { Decoder } from '../../src/models/decoder.ts'
import type { WeightStorage } from '../../src/models/decoder-weights.ts'
import { fitText } from '../../src/train/fit-text.ts'
import { type TextStep, type TextTraining, trainOnText } from '../../src/train/text-adapter.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const teacher = join(import.meta.dirname, '../../models/tiny-teacher')
const json = (name: string) => JSON.parse(readFileSync(join(teacher, name), 'utf8')) as object
const config = parseModelConfig(json('config.json'))
const weights = parseSafetensors(new Uint8Array(readFileSync(join(teacher, 'model.safetensors')))).tensors
const tokenizer = loadTokenizer(json('tokenizer.json'))
const text = 'The kettle sings in B flat, and the cat beneath the stove keeps time. '.repeat(3)
const settings: TextTraining = { text, name: 'kettle', rank: 4, steps: 20, rows: 2, tokens: 32 }

async function logits(decoder: Decoder, updates: Adapter, prompt: string): Promise<Float32Array> {
  const ids = [config.eosId, ...tokenizer.encode(prompt)]
  using step = gpu.step()
  return await step.read(decoder.forward(step, step.upload('u32', [1, ids.length], ids), { updates }))
}

const mean = (steps: readonly TextStep[]) => steps.reduce((sum, { loss }) => sum + loss, 0) / steps.length

test.each<WeightStorage>(['f32', 'nf4', 'int8'])('learns a text on a backbone in %s', (storage) =>
  withoutLeaks(async () => {
    using decoder = Decoder.load(gpu, config, weights, storage)
    const steps: TextStep[] = []
    using adapter = await trainOnText(decoder, tokenizer, { ...settings, onStep: (step) => steps.push(step) })
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
    expect(mean(steps.slice(-5))).toBeLessThan(mean(steps.slice(0, 5)) - 0.3)
    expect(adapter.parameters.size).toBe(2 * 7 * config.layers)
    expect(steps.every(({ tokensPerSecond }) => tokensPerSecond > 0)).toBe(true)
  }),
)

test('an adapter that was written as PEFT has it and read again gives the same logits, bit for bit', () =>
  withoutLeaks(async () => {
    using decoder = Decoder.load(gpu, config, weights)
    using adapter = await trainOnText(decoder, tokenizer, { ...settings, steps: 2 })
    const zip = writePeftZip(await adapter.toTensors('F32'), { layers: config.layers, baseModel: 'tiny' })
    const { settings: peft, tensors } = readPeftZip(zip)
    expect(peft).toMatchObject({ peft_type: 'LORA', r: 4, lora_alpha: 4, base_model_name_or_path: 'tiny' })
    using again = Adapter.fromPeft(gpu, 'again', config, peft, tensors)
    expect(await logits(decoder, again, 'The ke')).toEqual(await logits(decoder, adapter, 'The ke'))
    expect(writePeftZip(await again.toTensors('F32'), { layers: config.layers, baseModel: 'tiny' })).toEqual(zip)
  }))

test('the same seed gives the same adapter, another seed another one', () =>
  withoutLeaks(async () => {
    using decoder = Decoder.load(gpu, config, weights)
    const train = async (seed: number) => {
      using adapter = await trainOnText(decoder, tokenizer, { ...settings, steps: 3, seed })
      return writePeftZip(await adapter.toTensors('F32'), { layers: config.layers })
    }
    const first = await train(1)
    expect(await train(1)).toEqual(first)
    expect(await train(2)).not.toEqual(first)
  }))

test('stops between two steps, and leaves nothing behind', () =>
  withoutLeaks(async () => {
    using decoder = Decoder.load(gpu, config, weights)
    const stopper = new AbortController()
    let last = 0
    const onStep = ({ step }: TextStep) => {
      last = step
      if (step === 3) stopper.abort()
    }
    const training = trainOnText(decoder, tokenizer, { ...settings, onStep, signal: stopper.signal })
    await expect(training).rejects.toThrow(InterruptedError)
    expect(last).toBe(3)
  }))

test('a text is brought into the characters that the model knows', () => {
  expect(fitText(tokenizer, 'plain text')).toEqual({ text: 'plain text', changed: 0 })
  expect(fitText(tokenizer, '“Né—”\r\n\t1…')).toEqual({ text: '"Ne-"\n 1...', changed: 6 })
  expect(fitText(tokenizer, 'a猫b🐈')).toEqual({ text: 'ab', changed: 2 })
})

test('says what is wrong with a text, a setting or a file', () =>
  withoutLeaks(async () => {
    using decoder = Decoder.load(gpu, config, weights)
    const train = (change: Partial<TextTraining>) => trainOnText(decoder, tokenizer, { ...settings, ...change })
    await expect(train({ text: 'ab' })).rejects.toThrow('the text has 2 tokens')
    await expect(train({ text: 'Zażółć' })).rejects.toThrow('the vocabulary lacks "ż"')
    await expect(train({ rank: 0 })).rejects.toThrow('the rank must be from 1 to 128')
    await expect(train({ lr: 2 })).rejects.toThrow('a learning rate of 2')
    await expect(train({ steps: 0 })).rejects.toThrow('for 0 steps')
    expect(() => readPeftZip(new Uint8Array(30))).toThrow('it is no .zip')
    const file = new TextEncoder().encode('{}')
    expect(() => readPeftZip(zipSync({ 'adapter_config.json': file }))).toThrow('one adapter_model.safetensors')
    const twice = { 'a/adapter_config.json': file, 'b/adapter_config.json': file, 'adapter_model.safetensors': file }
    expect(() => readPeftZip(zipSync(twice))).toThrow('one adapter_config.json, it holds 2')
  }))
