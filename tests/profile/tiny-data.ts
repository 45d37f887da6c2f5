import { cp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Random } from '../../src/core/random.ts'
import { type DecoderConfig, parseModelConfig, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { readJson, writeFileAtomic, writeJson } from '../../src/host/files.ts'
import { randomTensors } from '../../src/models/decoder.ts'

const tinyTeacher = join(import.meta.dirname, '../../models/tiny-teacher')

/** The sizes of a model that is profiled in a second. */
export async function smallConfig(): Promise<DecoderConfig> {
  const config = parseModelConfig(await readJson(join(tinyTeacher, 'config.json')))
  return { ...config, width: 64, layers: 3, heads: 4, kvHeads: 2, headSize: 16, ffnWidth: 96 }
}

/** A folder of such a model with random weights, layer 1 doing nothing, and the tokenizer of the tiny teacher. */
export async function writeTeacher(folder: string): Promise<string> {
  const config = await smallConfig()
  await writeJson(join(folder, 'config.json'), toHuggingFaceConfig(config, 'float32'))
  const tensors = randomTensors(config, new Random(5), 0.1)
  for (const [name, { shape }] of tensors)
    if (/layers\.1\..*(o_proj|down_proj)/.test(name))
      tensors.set(name, cpuTensor('F32', shape, new Float32Array(shape[0] * shape[1])))
  await writeFileAtomic(join(folder, 'model.safetensors'), writeSafetensors(tensors))
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) await cp(join(tinyTeacher, name), join(folder, name))
  return folder
}

/** Sums in the tiny teacher's alphabet. */
export async function writeSums(path: string, count = 80): Promise<string> {
  const random = new Random(3)
  const turned = (n: number, digits: number) => [...String(n).padStart(digits, '0')].reverse().join('')
  const lines = Array.from({ length: count }, () => {
    const [a, b] = [random.integer(100), random.integer(100)]
    return JSON.stringify({ prompt: `+${turned(a, 2)}+${turned(b, 2)}=`, completion: turned(a + b, 3) })
  })
  await writeFile(path, lines.join('\n'))
  return path
}
