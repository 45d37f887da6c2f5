import { join } from 'node:path'
import type { OnProgress } from '../core/progress.ts'
import { ChatTemplate } from '../formats/chat.ts'
import { sha256 } from '../host/files.ts'
import { resolveModel } from '../host/model-store.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { type BaseModel, openBaseModel } from './base-model.ts'
import type { FinetuneSettings } from './finetune-settings.ts'
import { type CachedRows, cacheRows } from './row-cache.ts'

/** What a fine-tuning run works with. */
export interface FinetuneOptions {
  readonly gpu: Gpu
  /** Folder or GGUF file of the base, or the name of a pulled model. */
  readonly model: string
  /** JSONL, Parquet or text. */
  readonly data: string
  /** Where the adapter, the log and the checkpoints go. */
  readonly out: string
  readonly settings: FinetuneSettings
  /** A Jinja template, where the model has none or another is wanted. */
  readonly chatTemplate?: string
  /** Deletes what an earlier run left in `out` and starts over. */
  readonly fresh?: boolean
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** The base of a run, with the chat template that was asked for. */
export async function openBase({ model, chatTemplate }: FinetuneOptions): Promise<BaseModel> {
  const base = await openBaseModel(await resolveModel(model))
  if (chatTemplate === undefined) return base
  const chat = new ChatTemplate(chatTemplate, base.chatSettings)
  return { ...base, chat, encodingHash: sha256(`${base.encodingHash} ${sha256(chatTemplate)}`) }
}

/** The data of a run, encoded; `now` is what a chat template's clock shows. */
export function openRows(options: FinetuneOptions, base: BaseModel, now: Date): Promise<CachedRows> {
  const { data, out, settings, onProgress } = options
  const { tokenizer, chat, bosId, encodingHash, config } = base
  return cacheRows({
    ...{ data, folder: join(out, 'data'), encodingHash, onProgress, tokenizer, now },
    ...{ eosId: config.eosId, length: settings.length + 1, ...(chat && { chat }) },
    ...(bosId !== undefined && { bosId }),
  })
}

/** Midnight: what a chat template's clock shows, so that a day's runs encode alike. */
export function startOfDay(): Date {
  return new Date(new Date().toISOString().slice(0, 10))
}
