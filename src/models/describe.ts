import { statSync } from 'node:fs'
import { join } from 'node:path'
import { type Shape, sizeOf } from '../core/shape.ts'
import { quantizedNames, quantizedShape } from '../formats/bitsandbytes-weights.ts'
import { chatTemplateOf } from '../formats/chat.ts'
import { type Gguf, readGguf } from '../formats/gguf.ts'
import { parseGgufConfig } from '../formats/gguf-config.ts'
import { parseHuggingFaceConfig } from '../formats/hugging-face-config.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { SafetensorsFiles, shardIndexName } from '../formats/shards.ts'
import { exists, FileSource, readJson } from '../host/files.ts'
import { openModel } from './open-model.ts'

/** One tensor of a model's files. */
export interface TensorFacts {
  readonly name: string
  readonly shape: Shape
  /** As its format calls it: BF16, Q4_K. */
  readonly dtype: string
  readonly bytes: number
}

/** What a model's files say, without its weights being read. What a file does not say is left out. */
export interface ModelFacts {
  readonly path: string
  readonly format: 'GGUF' | 'Hugging Face folder' | 'safetensors'
  readonly name?: string
  readonly architecture?: string
  /** Whether Nexus reads this kind of model, and why not. */
  readonly opens: boolean
  readonly why?: string
  readonly config?: ModelConfig
  /** Weights, quantised ones counted as what they stand for. */
  readonly parameters: number
  /** Bytes of the weights. */
  readonly bytes: number
  readonly bitsPerWeight: number
  /** Such as nf4 of bitsandbytes, where one matrix is held by several tensors. */
  readonly quantization?: string
  readonly dtypes: readonly { readonly dtype: string; readonly tensors: number; readonly bytes: number }[]
  readonly tokenizer?: { readonly kind: string; readonly size: number }
  readonly chatTemplate: boolean
  /** Every tensor of the files. */
  readonly tensors: readonly TensorFacts[]
  /** The same, a matrix that several tensors hold as one. */
  readonly weights: readonly TensorFacts[]
}

type Said = Pick<ModelFacts, 'format' | 'name' | 'architecture' | 'config' | 'why' | 'tokenizer' | 'chatTemplate'>

/** Why a model does not open although its description is one that Nexus runs: its tokenizer, say, or a tensor it lacks. */
async function whyNot(path: string): Promise<string | undefined> {
  try {
    await using _ = await openModel(path)
    return undefined
  } catch (error) {
    const { message } = error as Error
    return message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message
  }
}

/**
 * Facts of a model: a GGUF file, a Hugging Face folder or a safetensors file, of a family that Nexus runs or not.
 * @throws SyntaxError naming the file and what is wrong where.
 */
export async function describeModel(path: string): Promise<ModelFacts> {
  const facts = await readFacts(path)
  if (!facts.opens) return facts
  const why = await whyNot(path)
  return why === undefined ? facts : { ...facts, opens: false, why }
}

async function readFacts(path: string): Promise<ModelFacts> {
  const fault = (error: unknown) => {
    const { message } = error as Error
    return error instanceof SyntaxError && !message.includes(path) ? new SyntaxError(`${path}: ${message}`) : error
  }
  try {
    if (exists(path) && statSync(path).isDirectory()) return await describeFolder(path)
    await using source = await FileSource.open(path)
    const start = new TextDecoder('latin1').decode(await source.read(0, Math.min(4, source.length)))
    if (path.endsWith('.gguf') || start === 'GGUF') return describeGguf(path, await readGguf(source))
    const said = { format: 'safetensors', chatTemplate: false, why: 'a folder with its config.json opens' } as const
    return facts(path, said, ...(await tensorsOf(await SafetensorsFiles.single(source))))
  } catch (error) {
    throw fault(error)
  }
}

function describeGguf(path: string, gguf: Gguf): ModelFacts {
  const { metadata } = gguf
  const text = (key: string) => {
    const value = metadata.get(key)
    return typeof value === 'string' ? value : undefined
  }
  const kind = [text('tokenizer.ggml.model'), text('tokenizer.ggml.pre')]
    .filter((part) => part !== undefined)
    .join(', ')
  const tokens = metadata.get('tokenizer.ggml.tokens') as { length?: number } | undefined
  const [name, architecture] = [text('general.name'), text('general.architecture')]
  const said: Said = {
    format: 'GGUF',
    ...(name !== undefined && { name }),
    ...(architecture !== undefined && { architecture }),
    ...(typeof tokens?.length === 'number' && { tokenizer: { kind: kind || 'unnamed', size: tokens.length } }),
    chatTemplate: metadata.has('tokenizer.chat_template'),
    ...reading(() => parseGgufConfig(gguf)),
  }
  const tensors = [...gguf.tensors.values()].map(({ name, shape, type, byteLength }) => ({
    ...{ name, shape, dtype: type, bytes: byteLength },
  }))
  return facts(path, said, tensors)
}

async function describeFolder(folder: string): Promise<ModelFacts> {
  const json = async (name: string) => (await readJson(join(folder, name))) as Record<string, unknown>
  const optional = async (name: string) => (exists(join(folder, name)) ? await json(name) : undefined)
  const config = await json('config.json')
  const sources: FileSource[] = []
  const open = async (name: string) => {
    const source = await FileSource.open(join(folder, name))
    sources.push(source)
    return source
  }
  try {
    const index = await optional(shardIndexName)
    if (!index && !exists(join(folder, 'model.safetensors')) && exists(join(folder, 'pytorch_model.bin')))
      throw new SyntaxError('it holds pytorch_model.bin, which is not read: get the model as safetensors or GGUF')
    const files = index
      ? await SafetensorsFiles.sharded(index, open)
      : await SafetensorsFiles.single(await open('model.safetensors')).catch((error: Error) => {
          throw new SyntaxError(`${join(folder, 'model.safetensors')}: ${error.message}`)
        })
    const tokenizer = (await optional('tokenizer.json')) as TokenizerFacts | undefined
    const settings = (await optional('tokenizer_config.json')) ?? {}
    const architecture = [config.architectures].flat()[0] ?? config.model_type
    const said: Said = {
      format: 'Hugging Face folder',
      ...(typeof architecture === 'string' && { architecture }),
      ...(tokenizer && { tokenizer: tokenizerFacts(tokenizer) }),
      chatTemplate: exists(join(folder, 'chat_template.jinja')) || chatTemplateOf(settings) !== undefined,
      ...reading(() => parseHuggingFaceConfig(config)),
    }
    return facts(folder, said, ...(await tensorsOf(files)))
  } finally {
    for (const source of sources) await source[Symbol.asyncDispose]()
  }
}

interface TokenizerFacts {
  readonly model?: { readonly type?: string; readonly vocab?: object }
  readonly added_tokens?: readonly { readonly id?: unknown }[]
}

function tokenizerFacts({ model, added_tokens = [] }: TokenizerFacts): { kind: string; size: number } {
  const vocabulary = Array.isArray(model?.vocab) ? model.vocab.keys() : (Object.values(model?.vocab ?? {}) as unknown[])
  return {
    kind: model?.type ?? 'unnamed',
    size: new Set([...vocabulary, ...added_tokens.map(({ id }) => id)]).size,
  }
}

/** A config, or the reason why it is none that Nexus runs. */
function reading(parse: () => ModelConfig): Pick<ModelFacts, 'config' | 'why'> {
  try {
    return { config: parse() }
  } catch (error) {
    return { why: (error as Error).message }
  }
}

/** The tensors of files, and what they stand for. */
async function tensorsOf(files: SafetensorsFiles): Promise<[tensors: TensorFacts[], weights: TensorFacts[]]> {
  const tensors = [...files.entries.values()].map(({ name, dtype, shape, byteLength }) => ({
    ...{ name, dtype, shape, bytes: byteLength },
  }))
  const quantized = quantizedNames(files.entries.keys())
  const parts = new Set([...quantized.values()].flat())
  const weights: TensorFacts[] = tensors.filter(({ name }) => !parts.has(name))
  for (const [name, names] of quantized) {
    const bytes = names.reduce((sum, part) => sum + files.entries.get(part)!.byteLength, 0)
    const nested = names.some((part) => part.endsWith('.nested_absmax'))
    const dtype = names.some((part) => part.endsWith('.SCB')) ? 'int8' : nested ? 'nf4-double' : 'nf4'
    weights.push({ name, dtype, shape: await quantizedShape(files, name), bytes })
  }
  return [tensors, weights]
}

function facts(
  path: string,
  said: Said,
  tensors: readonly TensorFacts[],
  weights: readonly TensorFacts[] = tensors,
): ModelFacts {
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0)
  const parameters = weights.reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  const dtypes = new Map<string, { tensors: number; bytes: number }>()
  for (const { dtype, bytes: size } of weights) {
    const sum = dtypes.get(dtype) ?? { tensors: 0, bytes: 0 }
    dtypes.set(dtype, { tensors: sum.tensors + 1, bytes: sum.bytes + size })
  }
  const kinds = [...dtypes.keys()].filter((dtype) => /^(nf4|int8)/.test(dtype))
  return {
    path,
    ...said,
    opens: said.why === undefined,
    parameters,
    bytes,
    bitsPerWeight: parameters === 0 ? 0 : (8 * bytes) / parameters,
    ...(kinds.length > 0 && { quantization: `${kinds.join(', ')} of bitsandbytes` }),
    dtypes: [...dtypes].map(([dtype, sum]) => ({ dtype, ...sum })).sort((a, b) => b.bytes - a.bytes),
    tensors,
    weights,
  }
}

/** Tensors of one kind in all layers: `model.layers.*.mlp.up_proj.weight`. */
export interface TensorGroup {
  readonly name: string
  readonly count: number
  /** Of each, or of the first where they differ. */
  readonly shape: Shape
  readonly sameShape: boolean
  readonly dtypes: readonly string[]
  readonly bytes: number
}

/** Tensors by kind: names that differ in a layer's number alone are one group, in the order of the file. */
export function groupTensors(tensors: readonly TensorFacts[]): TensorGroup[] {
  const groups = new Map<string, TensorFacts[]>()
  for (const tensor of tensors) {
    const name = tensor.name.replace(/(^|\.)\d+(?=\.|$)/g, '$1*')
    groups.set(name, [...(groups.get(name) ?? []), tensor])
  }
  return [...groups].map(([name, list]) => ({
    name,
    count: list.length,
    shape: list[0].shape,
    sameShape: list.every(({ shape }) => shape.join() === list[0].shape.join()),
    dtypes: [...new Set(list.map(({ dtype }) => dtype))].sort(),
    bytes: list.reduce((sum, { bytes }) => sum + bytes, 0),
  }))
}
