import type { ChatTemplate } from '../formats/chat.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import type { ModelWeights } from '../formats/weights.ts'
import { sha256 } from '../host/files.ts'
import { modelHash } from '../models/model-hash.ts'
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

/**
 * Opens a decoder of any supported family from a Hugging Face folder or a GGUF file.
 * @throws SyntaxError naming the file and what is wrong.
 */
export async function openBaseModel(path: string): Promise<BaseModel> {
  const model = await openModel(path)
  try {
    const { config, weights, tokenizer, chat, settings, tokenizerJson, bosId } = model
    return {
      ...{ config, weights, tokenizer, chatSettings: settings },
      ...(chat && { chat }),
      ...(bosId !== undefined && { bosId }),
      hash: await modelHash(model),
      encodingHash: sha256(JSON.stringify([tokenizerJson, settings])),
      [Symbol.asyncDispose]: () => model[Symbol.asyncDispose](),
    }
  } catch (error) {
    await model[Symbol.asyncDispose]()
    throw error
  }
}
