import { statSync } from 'node:fs'
import { join } from 'node:path'
import { bitsandbytesWeights } from '../formats/bitsandbytes-weights.ts'
import { ChatTemplate, chatTemplateOf } from '../formats/chat.ts'
import { readGguf } from '../formats/gguf.ts'
import { parseGgufConfig } from '../formats/gguf-config.ts'
import { tokenizerFromGguf } from '../formats/gguf-tokenizer.ts'
import { parseHuggingFaceConfig } from '../formats/hugging-face-config.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { SafetensorsFiles, shardIndexName } from '../formats/shards.ts'
import { asksForBos, loadTokenizer, type Tokenizer } from '../formats/tokenizer.ts'
import { ggufWeights, ModelWeights } from '../formats/weights.ts'
import { exists, FileSource, readBytes, readJson } from '../host/files.ts'

/** A model's files, open: its weights are read when they are asked for. Dispose of it when they are loaded. */
export interface OpenModel extends AsyncDisposable {
  readonly config: ModelConfig
  readonly weights: ModelWeights
  readonly tokenizer: Tokenizer
  /** What tokenizer.json holds, or would hold. */
  readonly tokenizerJson: object
  /** What tokenizer_config.json holds, or would hold. */
  readonly settings: object
  /** Id that the tokenizer puts in front of a text, where it does. */
  readonly bosId?: number
  /** Where the model has one. */
  readonly chat?: ChatTemplate
}

/**
 * Opens a model of any supported family: a GGUF file, or a Hugging Face folder with one safetensors file or several,
 * dense or quantised by bitsandbytes.
 * @throws SyntaxError naming the file and what is wrong with it.
 *
 * @example
 * await using model = await openModel('SmolLM2-135M-Instruct.Q4_1.gguf')
 * const values = await model.weights.read('model.layers.0.mlp.up_proj.weight')
 */
export async function openModel(path: string): Promise<OpenModel> {
  const files: FileSource[] = []
  const open = async (name: string) => {
    const file = await FileSource.open(name)
    files.push(file)
    return file
  }
  const close = async () => {
    for (const file of files) await file[Symbol.asyncDispose]()
  }
  try {
    if (!path.endsWith('.gguf') && exists(path) && statSync(path).isFile())
      throw new SyntaxError('it is no GGUF file; of a Hugging Face model give the folder, with config.json in it')
    const parts = path.endsWith('.gguf') ? await fromGguf(await open(path)) : await fromFolder(path, open)
    const { config, tokenizerJson, settings } = parts
    const tokenizer = loadTokenizer(tokenizerJson, settings)
    if (tokenizer.size > config.vocabularySize)
      throw new SyntaxError(`the tokenizer has ${tokenizer.size} ids, the model ${config.vocabularySize}`)
    const template = chatTemplateOf(settings)
    const chat = template === undefined ? {} : { chat: new ChatTemplate(template, settings) }
    const starts = config.bosId !== undefined && asksForBos(tokenizerJson, settings)
    const bos = starts ? { bosId: config.bosId } : {}
    return { ...parts, tokenizer, ...bos, ...chat, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    const { message } = error as Error
    if (!(error instanceof SyntaxError) || message.includes(path)) throw error
    throw new SyntaxError(`${path}: ${message}`)
  }
}

type Parts = Pick<OpenModel, 'config' | 'weights' | 'tokenizerJson' | 'settings'>

async function fromGguf(source: FileSource): Promise<Parts> {
  const gguf = await readGguf(source)
  const config = parseGgufConfig(gguf)
  const { json, settings } = tokenizerFromGguf(gguf.metadata)
  return { config, weights: new ModelWeights(config, ggufWeights(source, gguf)), tokenizerJson: json, settings }
}

async function fromFolder(folder: string, open: (name: string) => Promise<FileSource>): Promise<Parts> {
  const json = async (name: string) => (await readJson(join(folder, name))) as object
  const optional = async (name: string) => (exists(join(folder, name)) ? await json(name) : {})
  const plain = parseHuggingFaceConfig(await json('config.json'))
  // Chat models end answers with more tokens than their config.json says.
  const { eos_token_id: ends } = (await optional('generation_config.json')) as { eos_token_id?: unknown }
  const eosIds = [ends].flat().filter((id) => Number.isInteger(id) && (id as number) < plain.vocabularySize) as number[]
  const config = eosIds.length > 0 ? { ...plain, eosId: eosIds[0], eosIds } : plain
  const tensors = exists(join(folder, shardIndexName))
    ? await SafetensorsFiles.sharded(await json(shardIndexName), (name) => open(join(folder, name)))
    : await SafetensorsFiles.single(await open(join(folder, 'model.safetensors')))
  const template = join(folder, 'chat_template.jinja')
  const settings = {
    ...(await optional('tokenizer_config.json')),
    ...(exists(template) ? { chat_template: new TextDecoder().decode(await readBytes(template)) } : {}),
  }
  const tokenizerJson = await json('tokenizer.json')
  return { config, weights: new ModelWeights(config, await bitsandbytesWeights(tensors)), tokenizerJson, settings }
}
