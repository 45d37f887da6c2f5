import type { ChatTemplate } from '../formats/chat.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { sha256 } from '../host/files.ts'
import { openModel } from '../models/open-model.ts'

/** A model that is to be trained further, its files open: weights are read when the GPU takes them. */
export interface BaseModel extends AsyncDisposable {
  readonly config: ModelConfig
  readonly weights: ModelWeights
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

/** Numbers of a tensor that tell it from another's. */
const beginning = 1024

/**
 * Opens a decoder of any supported family from a Hugging Face folder or a GGUF file.
 * @throws SyntaxError naming the file and what is wrong.
 */
export async function openBaseModel(path: string): Promise<BaseModel> {
  const model = await openModel(path)
  try {
    const { config, weights, tokenizer, chat, settings, tokenizerJson } = model
    const beginnings: string[] = []
    for (const [name, { shape }] of weights.recipes) {
      const rows = Math.min(shape[0], Math.ceil(beginning / (shape[1] ?? 1)))
      const values = (await weights.read(name, 0, rows)).slice(0, beginning)
      beginnings.push(sha256(new Uint8Array(values.buffer)))
    }
    const bosId = asksForBos(tokenizerJson, settings) ? config.bosId : undefined
    return {
      ...{ config, weights, tokenizer, chatSettings: settings },
      ...(chat && { chat }),
      ...(bosId !== undefined && { bosId }),
      hash: sha256(JSON.stringify([config, beginnings])),
      encodingHash: sha256(JSON.stringify([tokenizerJson, settings])),
      [Symbol.asyncDispose]: () => model[Symbol.asyncDispose](),
    }
  } catch (error) {
    await model[Symbol.asyncDispose]()
    throw error
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
