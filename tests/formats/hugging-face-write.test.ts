import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { outlineQuantized, quantizations, quantizeForFile } from '../../src/formats/bitsandbytes-quantize.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { writeHuggingFaceConfig } from '../../src/formats/hugging-face-write.ts'
import type { ModelConfig } from '../../src/formats/model-family.ts'
import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'

const cases = JSON.parse(readFileSync(join(import.meta.dirname, '../oracles/golden/families.json'), 'utf8')) as Record<
  string,
  { config: object }
>
const configs = Object.entries(cases).map(([name, { config }]) => [name, parseHuggingFaceConfig(config)] as const)

test.each(configs)('%s: config.json reads back as it was written', (_, config) => {
  const json = writeHuggingFaceConfig(config)
  expect(parseHuggingFaceConfig(JSON.parse(JSON.stringify(json)))).toEqual(config)
})

test('f32 numbers of GGUF are written short, and Llama 3’s scaling is found in its divisors', () => {
  const plain = parseHuggingFaceConfig(cases['llama-3'].config)
  expect(plain.ropeScaling?.type).toBe('llama3')
  const { ropeTheta, rotaryDimensions, ropeScaling } = plain
  const scaled = ropeFrequencies(ropeTheta, rotaryDimensions, ropeScaling).inverse
  const divisors = ropeFrequencies(ropeTheta, rotaryDimensions).inverse.map((frequency, i) => frequency / scaled[i])
  const gguf: ModelConfig = {
    ...plain,
    normEps: Math.fround(1e-5),
    ropeScaling: { type: 'tensor', name: 'rope_freqs.weight' },
  }
  const json = writeHuggingFaceConfig(gguf, divisors)
  expect(json.rms_norm_eps).toBe(1e-5)
  const back = parseHuggingFaceConfig(json)
  const again = ropeFrequencies(back.ropeTheta, back.rotaryDimensions, back.ropeScaling).inverse
  for (const [i, frequency] of scaled.entries()) expect(Math.abs(again[i] / frequency - 1)).toBeLessThan(1e-5)
  const strange = divisors.map((divisor, i) => divisor + (i % 2) / 3)
  expect(() => writeHuggingFaceConfig(gguf, strange)).toThrow(/not Llama 3/)
})

test('what config.json cannot say is named', () => {
  const llama = parseHuggingFaceConfig(cases.llama.config)
  expect(() => writeHuggingFaceConfig({ ...llama, queryKeyNorm: true })).toThrow(
    /no words for this llama.*queryKeyNorm/,
  )
  expect(() => writeHuggingFaceConfig({ ...llama, qkvBias: true })).toThrow(/outputBias/)
})

test.each(quantizations)('%s: the outlines are those of the tensors', (type) => {
  for (const scale of [1, 1e-7, 3.3e-20, 1e9]) {
    const values = Float32Array.from({ length: 6 * 128 }, (_, i) => Math.sin(i) * scale)
    const tensors = quantizeForFile('a.weight', values, [6, 128], type, 'bfloat16')
    const outlines = outlineQuantized('a.weight', [6, 128], type, 'bfloat16')
    expect(outlines.map(({ name }) => name)).toEqual([...tensors.keys()])
    for (const { name, dtype, shape } of outlines) expect(tensors.get(name)).toMatchObject({ dtype, shape })
  }
})
