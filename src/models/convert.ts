import { copyFile, mkdir, readdir, rename } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { InterruptedError, UsageError } from '../core/errors.ts'
import { byteProgress, type OnProgress } from '../core/progress.ts'
import { type Shape, sizeOf } from '../core/shape.ts'
import {
  bitsandbytesConfig,
  outlineQuantized,
  type Quantization,
  quantizations,
  quantizeForFile,
  type RestType,
} from '../formats/bitsandbytes-quantize.ts'
import { writeHuggingFaceConfig } from '../formats/hugging-face-write.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { byteLengthOf, layOutSafetensors, type TensorOutline } from '../formats/safetensors.ts'
import { planShards, shardIndexName } from '../formats/shards.ts'
import { cpuTensor } from '../formats/tensor.ts'
import { tensorRecipes } from '../formats/tensor-recipes.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { checkDiskSpace, exists, FileSink, readJson, removeFolder, writeFileAtomic, writeJson } from '../host/files.ts'
import { isAlive } from '../host/process-alive.ts'
import { type OpenModel, openModel } from './open-model.ts'

/** What a model can be converted to. */
export const conversionTypes = ['f16', 'bf16', 'f32', ...quantizations] as const

/** What a model is converted to: a dtype for all tensors, or a quantisation of its linear layers. */
export type ConversionType = (typeof conversionTypes)[number]

/** How a model is converted. */
export interface ConvertOptions {
  readonly to: ConversionType
  /** dtype of what is not quantised, where `to` is a quantisation; bf16 unless told. */
  readonly rest?: 'f16' | 'bf16' | 'f32'
  /** Most bytes of a file's weights; 5 GB unless told. */
  readonly shardBytes?: number
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

/** A folder that a conversion wrote. */
export interface Converted {
  readonly folder: string
  readonly parameters: number
  /** Matrices that were quantised. */
  readonly quantized: number
  /** Bytes of all weights. */
  readonly bytes: number
  readonly files: readonly string[]
}

const floats = {
  f16: { file: 'F16', name: 'float16' },
  bf16: { file: 'BF16', name: 'bfloat16' },
  f32: { file: 'F32', name: 'float32' },
} as const
const windowElements = 1 << 22
const beside =
  /^(tokenizer[\w.-]*\.(json|model)|special_tokens_map\.json|chat_template\.jinja|generation_config\.json)$/

/** A tensor as Hugging Face's classes name it, and the model's tensors that lie in it below each other. */
interface OutputTensor {
  readonly name: string
  readonly shape: Shape
  readonly parts: { readonly name: string; readonly rows: number; readonly add: number }[]
}

/**
 * Writes any model that opens as a Hugging Face folder, a window of one tensor at a time: at most one quantised matrix
 * is in memory. Only linear layers are quantised, in the layout of bitsandbytes. The folder appears when it is whole.
 * @throws UsageError when `folder` is there already; SyntaxError when the model cannot be read or said in config.json;
 *   RangeError when a value does not fit the dtype; ResourceError when the disk is too small; InterruptedError.
 */
export async function convertModel(from: string, folder: string, options: ConvertOptions): Promise<Converted> {
  if (exists(folder)) throw new UsageError(`Cannot convert to ${folder}: it is there already`)
  await using model = await openModel(from)
  await mkdir(dirname(resolve(folder)), { recursive: true })
  await removeLeftovers(resolve(folder))
  const part = `${resolve(folder)}.${process.pid}.part`
  await mkdir(part)
  try {
    const converted = await writeWeights(model, part, options)
    await writeTokenizer(model, from, part)
    // The last file, so that what a killed process leaves does not open.
    await writeJson(join(part, 'config.json'), await configJson(model, from, options))
    await rename(part, folder)
    return { ...converted, folder }
  } catch (error) {
    await removeFolder(part)
    throw error
  }
}

/** Deletes what killed conversions to the same folder left. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(dirname(folder))) {
    const [, base, pid] = /^(.+)\.(\d+)\.part$/.exec(name) ?? []
    if (base === basename(folder) && (Number(pid) === process.pid || !isAlive(Number(pid))))
      await removeFolder(join(dirname(folder), name))
  }
}

async function writeWeights(
  model: OpenModel,
  folder: string,
  options: ConvertOptions,
): Promise<Omit<Converted, 'folder'>> {
  const { onProgress, signal } = options
  const { quantization, rest } = kinds(options)
  const outputs = outputTensors(model.config)
  const isQuantized = ({ name, shape }: OutputTensor) =>
    quantization !== undefined && shape.length === 2 && name.endsWith('_proj.weight')
  const outlines = outputs.map((output) =>
    isQuantized(output)
      ? outlineQuantized(output.name, output.shape, quantization!, rest.name)
      : [{ name: output.name, dtype: rest.file, shape: output.shape }],
  )
  const { files, index } = planShards(outlines, options.shardBytes)
  const total = outlines.flat().reduce((sum, { dtype, shape }) => sum + byteLengthOf(dtype, shape), 0)
  await checkDiskSpace(folder, total)
  const byName = new Map(outputs.map((output) => [output.name, output]))
  let written = 0
  for (const [file, list] of files) {
    await using sink = await FileSink.create(join(folder, file))
    const { header, offsets } = placesOf(list)
    await sink.write(0, header)
    const put = async (name: string, at: number, bytes: Uint8Array) => {
      if (signal?.aborted) throw new InterruptedError('Stopped converting; nothing was written.')
      await sink.write(offsets.get(name)! + at, bytes)
      written += bytes.length
      onProgress?.(byteProgress('convert', written, total))
    }
    for (const { name } of list) {
      const output = byName.get(name)
      if (!output) continue
      const { shape } = output
      if (isQuantized(output)) {
        const values = await readRows(model.weights, output, 0, shape[0])
        const tensors = quantizeForFile(name, values, shape, quantization!, rest.name)
        for (const [key, { data }] of tensors) await put(key, 0, data)
      } else {
        const columns = sizeOf(shape.slice(1))
        const step = Math.max(1, Math.floor(windowElements / columns))
        for (let row = 0, at = 0; row < shape[0]; row += step) {
          const count = Math.min(step, shape[0] - row)
          const bytes = encode(name, await readRows(model.weights, output, row, count), rest)
          await put(name, at, bytes)
          at += bytes.length
        }
      }
    }
    await sink.flush()
  }
  if (index !== undefined) await writeFileAtomic(join(folder, shardIndexName), index)
  const parameters = outputs.reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  return { parameters, quantized: outputs.filter(isQuantized).length, bytes: total, files: [...files.keys()] }
}

function kinds({ to, rest = 'bf16' }: ConvertOptions): {
  quantization?: Quantization
  rest: { file: 'F16' | 'BF16' | 'F32'; name: RestType }
} {
  if (to === 'f16' || to === 'bf16' || to === 'f32') return { rest: floats[to] }
  return { quantization: to, rest: floats[rest] }
}

function placesOf(list: readonly TensorOutline[]): { header: Uint8Array; offsets: Map<string, number> } {
  const { header, order } = layOutSafetensors(list, { format: 'pt' })
  const outlines = new Map(list.map((outline) => [outline.name, outline]))
  const offsets = new Map<string, number>()
  let at = header.length
  for (const name of order) {
    const { dtype, shape } = outlines.get(name)!
    offsets.set(name, at)
    at += byteLengthOf(dtype, shape)
  }
  return { header, offsets }
}

/** The tensors of a Hugging Face folder, in the order of the network. */
function outputTensors(config: ModelConfig): OutputTensor[] {
  const outputs = new Map<string, OutputTensor>()
  for (const [name, { from, fromShape, shape, transform }] of tensorRecipes(config, 'hugging-face')) {
    const output = outputs.get(from) ?? { name: from, shape: fromShape, parts: [] }
    outputs.set(from, output)
    // Recipes name the rows of a fused tensor from the top to the bottom.
    output.parts.push({ name, rows: shape[0], add: transform?.type === 'add' ? transform.value : 0 })
  }
  return [...outputs.values()]
}

/** Rows of an output tensor: as they are in a Hugging Face folder; from another file, with its recipes undone. */
async function readRows(
  weights: ModelWeights,
  { name, shape, parts }: OutputTensor,
  first: number,
  count: number,
): Promise<Float32Array<ArrayBuffer>> {
  if (weights.scheme === 'hugging-face') return weights.readStored(name, first, count)
  const columns = sizeOf(shape.slice(1))
  const y = new Float32Array(count * columns)
  let top = 0
  for (const part of parts) {
    const begin = Math.max(first, top)
    const end = Math.min(first + count, top + part.rows)
    if (begin < end) {
      const values = await weights.read(part.name, begin - top, end - begin)
      if (part.add !== 0) for (let i = 0; i < values.length; i++) values[i] -= part.add
      if (values.length === y.length) return values
      y.set(values, (begin - first) * columns)
    }
    top += part.rows
  }
  return y
}

function encode(name: string, values: Float32Array, { file }: { file: 'F16' | 'BF16' | 'F32' }): Uint8Array {
  if (file === 'F16') {
    const wrong = values.find((value) => Number.isFinite(value) && Math.abs(value) >= 65520)
    if (wrong !== undefined)
      throw new RangeError(`Cannot write ${name} as f16: it holds ${wrong}, and f16 ends at 65504. Take bf16 or f32.`)
  }
  return cpuTensor(file, [values.length], values).data
}

async function configJson(model: OpenModel, from: string, options: ConvertOptions): Promise<object> {
  const { quantization, rest } = kinds(options)
  const common = {
    torch_dtype: rest.name,
    ...(quantization && { quantization_config: bitsandbytesConfig(quantization, rest.name) }),
  }
  if (model.weights.scheme === 'gguf') {
    const { ropeScaling } = model.config
    const divisors = ropeScaling?.type === 'tensor' ? await model.weights.readExtra(ropeScaling.name) : undefined
    return { ...writeHuggingFaceConfig(model.config, divisors), ...common }
  }
  const {
    quantization_config: _,
    dtype: __,
    ...whole
  } = (await readJson(join(from, 'config.json'))) as Record<string, unknown>
  const text = whole.model_type === 'gemma3' ? (whole.text_config as object) : undefined
  if (!text) return { ...whole, ...common }
  // Of a model that also sees, the part that writes is kept.
  return { ...text, architectures: ['Gemma3ForCausalLM'], model_type: 'gemma3_text', ...common }
}

async function writeTokenizer(model: OpenModel, from: string, folder: string): Promise<void> {
  if (model.weights.scheme === 'hugging-face') {
    for (const name of await readdir(from))
      if (beside.test(name)) await copyFile(join(from, name), join(folder, basename(name)))
    if (!exists(join(folder, 'tokenizer_config.json')))
      await writeJson(join(folder, 'tokenizer_config.json'), model.settings)
    return
  }
  const { config, settings, tokenizer } = model
  const { add_bos_token: addsBos, bos_token: bos } = settings as { add_bos_token?: boolean; bos_token?: string }
  const id = bos === undefined ? undefined : tokenizer.specials.get(bos)
  const json =
    addsBos && id !== undefined ? { ...model.tokenizerJson, post_processor: begins(bos!, id) } : model.tokenizerJson
  await writeFileAtomic(join(folder, 'tokenizer.json'), JSON.stringify(json))
  await writeJson(join(folder, 'tokenizer_config.json'), {
    ...settings,
    clean_up_tokenization_spaces: false,
    model_max_length: config.contextLength,
    tokenizer_class: 'PreTrainedTokenizerFast',
  })
  await writeJson(join(folder, 'generation_config.json'), {
    ...(config.bosId !== undefined && { bos_token_id: config.bosId }),
    eos_token_id: config.eosIds.length > 1 ? config.eosIds : config.eosId,
    ...(config.padId !== undefined && { pad_token_id: config.padId }),
  })
}

/** What puts the begin token before a text in transformers, whose fast tokenizers ask no setting for it. */
function begins(token: string, id: number): object {
  const special = { SpecialToken: { id: token, type_id: 0 } }
  return {
    type: 'TemplateProcessing',
    single: [special, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [
      special,
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: token, type_id: 1 } },
      { Sequence: { id: 'B', type_id: 1 } },
    ],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  }
}
