import type { ChatTemplate } from '../formats/chat.ts'
import { type DecoderConfig, expectedTensors } from '../formats/model-config.ts'
import { extraFeatures } from '../formats/model-family.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import { sha256 } from '../host/files.ts'
import { openModel } from '../models/open-model.ts'

/** A model that is to be trained further, read whole. */
export interface BaseModel {
  readonly config: DecoderConfig
  readonly tensors: ReadonlyMap<string, CpuTensor>
  readonly tokenizer: Tokenizer
  readonly chat?: ChatTemplate
  /** Id in front of every text, where the tokenizer asks for one. */
  readonly bosId?: number
  /** Where the special tokens are that a chat template may ask for. */
  readonly chatSettings: object
  /** Hash of the configuration and of the beginning of every tensor: another one means another model. */
  readonly hash: string
  /** Hash of tokenizer and chat template. */
  readonly encodingHash: string
}

/**
 * Reads a plain Llama decoder from a Hugging Face folder or a GGUF file.
 * @throws SyntaxError naming the file and what is wrong, or what the model needs that a plain decoder lacks.
 */
export async function readBaseModel(path: string): Promise<BaseModel> {
  await using model = await openModel(path)
  const extra = extraFeatures(model.config)
  if (extra.length > 0)
    throw new SyntaxError(
      `Cannot train ${path}: this ${model.config.family} needs what a plain decoder lacks: ${extra.join(', ')}`,
    )
  const tensors = new Map<string, CpuTensor>()
  const beginnings: string[] = []
  for (const [name, shape] of expectedTensors(model.config)) {
    const values = await model.weights.read(name)
    const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    tensors.set(name, { dtype: 'F32', shape, data })
    beginnings.push(sha256(data.subarray(0, 4096)))
  }
  const { config, tokenizer, chat, settings } = model
  const bosId = asksForBos(model.tokenizerJson, settings) ? config.bosId : undefined
  return {
    config,
    tensors,
    tokenizer,
    ...(chat && { chat }),
    ...(bosId !== undefined && { bosId }),
    chatSettings: settings,
    hash: sha256(JSON.stringify([config, beginnings])),
    encodingHash: sha256(JSON.stringify([model.tokenizerJson, settings])),
  }
}

/** Whether a tokenizer puts its first token in front of a text: by its settings, or by the template in its post-processor. */
export function asksForBos(tokenizerJson: object, settings: object): boolean {
  const { add_bos_token: asked, bos_token: token } = settings as { add_bos_token?: unknown; bos_token?: unknown }
  if (typeof asked === 'boolean') return asked
  const text = typeof token === 'object' ? (token as { content?: unknown } | null)?.content : token
  const { post_processor: after } = tokenizerJson as { post_processor?: unknown }
  return typeof text === 'string' && JSON.stringify(after ?? null).includes(JSON.stringify(text))
}
