import { join } from 'node:path'
import { checkWeights, type DecoderConfig, parseModelConfig } from '../formats/model-config.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { loadTokenizer, type Tokenizer } from '../formats/tokenizer.ts'
import { exists, readBytes, readJson } from '../host/files.ts'

/** A Hugging Face model folder, read and checked. */
export interface ModelFolder {
  readonly config: DecoderConfig
  readonly tensors: ReadonlyMap<string, CpuTensor>
  readonly tokenizer: Tokenizer
  readonly tokenizerJson: object
}

/**
 * Reads config.json, model.safetensors and tokenizer.json of a folder.
 * @throws SyntaxError naming the file and what is wrong with it.
 */
export async function readModelFolder(folder: string): Promise<ModelFolder> {
  const config = parseModelConfig(await readJson(join(folder, 'config.json')))
  const path = join(folder, 'model.safetensors')
  const bytes = await readBytes(path)
  let tensors: ReadonlyMap<string, CpuTensor>
  try {
    tensors = parseSafetensors(bytes).tensors
  } catch (error) {
    throw new SyntaxError(`${path}: ${(error as Error).message}`)
  }
  checkWeights(config, tensors)
  const tokenizerJson = (await readJson(join(folder, 'tokenizer.json'))) as object
  const settings = join(folder, 'tokenizer_config.json')
  const tokenizer = loadTokenizer(tokenizerJson, exists(settings) ? ((await readJson(settings)) as object) : {})
  if (tokenizer.size > config.vocabularySize)
    throw new SyntaxError(
      `${folder}: the tokenizer has ${tokenizer.size} ids, config.json allows ${config.vocabularySize}`,
    )
  return { config, tensors, tokenizer, tokenizerJson }
}
