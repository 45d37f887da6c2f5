import { basename } from 'node:path'
import { type EncodedRow, encodeExample } from '../data/encode.ts'
import { type Example, toExample } from '../data/example.ts'
import { readRecords } from '../data/records.ts'
import type { ChatTemplate } from '../formats/chat.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import { FileSource, sha256, sha256Of } from '../host/files.ts'
import type { OpenModel } from '../models/open-model.ts'
import { padRowsTo, type Row } from './batch.ts'
import type { Capability } from './capability.ts'

/** What data is encoded with: the model's own tokenizer and template. */
export interface ModelEncoding {
  readonly tokenizer: Tokenizer
  readonly chat?: ChatTemplate
  /** Id in front of every text, where the tokenizer asks for one. */
  readonly bosId?: number
  readonly eosId: number
}

/** The encoding of a model that is open. */
export function encodingOf({ tokenizer, config, chat, bosId }: OpenModel): ModelEncoding {
  return { tokenizer, eosId: config.eosId, ...(chat && { chat }), ...(bosId !== undefined && { bosId }) }
}

/** How a data file becomes a capability. */
export interface DataCapabilityOptions {
  readonly name: string
  /** .jsonl, .parquet or .txt: messages, ShareGPT, prompt and completion, Alpaca, or text. */
  readonly data: string
  readonly encoding: ModelEncoding
  /** Most tokens of a row. */
  readonly length: number
  /** In words for a person; the name of the file unless told. */
  readonly description?: string
  /** Share of the records that is held out, 0.1 unless told; one at least. Of texts it is a share of their rows. */
  readonly heldOut?: number
  /** Tokens after which the rest of the file is not read: they are kept in memory. 2²⁴ unless told. */
  readonly mostTokens?: number
  /** What a chat template's clock shows. */
  readonly now?: Date
}

/** A capability that a data file shows. */
export interface DataCapability extends Capability {
  /** Training rows of their own lengths, in the order of the file. */
  readonly train: readonly Row[]
  /** sha256 of the data file. */
  readonly dataHash: string
  /** Whether the file goes on behind what was read. */
  readonly cut: boolean
}

/** Rows that stay on one side of the split, with what decides the side. */
interface Group {
  readonly hash: string
  readonly rows: Row[]
}

/**
 * A capability from a data file. What is held out is decided by content: equal records are on one side, whatever else is
 * in the file and in whatever order. Weights are 1 on what is learned: completions, the assistant's words, or all of a text.
 * @throws SyntaxError with the line of the data that is at fault; RangeError when too few records are left on a side.
 *
 * @example
 * await using model = await openModel('SmolLM2-135M-Instruct.Q4_1.gguf')
 * const sums = await dataCapability({ name: 'sums', data: 'sums.jsonl', encoding: encodingOf(model), length: 128 })
 */
export async function dataCapability(options: DataCapabilityOptions): Promise<DataCapability> {
  const { name, data, length, heldOut = 0.1, mostTokens = 2 ** 24 } = options
  if (!(heldOut > 0 && heldOut < 1)) throw new RangeError(`Cannot hold out ${heldOut} of ${data}: give 0 to 1`)
  await using source = await FileSource.open(data)
  const encoding = { ...options.encoding, length: length + 1, ...(options.now && { now: options.now }) }
  const groups: Group[] = []
  const kinds = new Set<Example['kind']>()
  let tokens = 0
  let cut = false
  for await (const record of readRecords(basename(data), source)) {
    if (tokens >= mostTokens) {
      cut = true
      break
    }
    const example = toExample(record)
    kinds.add(example.kind)
    const rows = encodeExample(record.place, example, encoding).rows.map(toRow)
    for (const row of rows) tokens += row.weights.length
    // Rows of a text follow each other and share no token that is predicted; those of a conversation are one record.
    if (example.kind === 'text') for (const row of rows) groups.push({ hash: hashOf([row]), rows: [row] })
    else if (rows.length > 0) groups.push({ hash: hashOf(rows), rows })
  }
  if (groups.length === 0)
    throw new RangeError(
      `Cannot learn from ${data}: it is empty, or all that is learned lies behind the first ${length} tokens of its records`,
    )
  const hashes = [...new Set(groups.map(({ hash }) => hash))].sort()
  const count = Math.max(1, Math.round(heldOut * hashes.length))
  if (count >= hashes.length)
    throw new RangeError(
      `Cannot hold out ${count} of ${hashes.length} different records of ${data}: nothing is left to learn from`,
    )
  const held = new Set(hashes.slice(0, count))
  const train = groups.filter(({ hash }) => !held.has(hash)).flatMap(({ rows }) => rows)
  const items: Row[] = []
  const seen = new Set<string>()
  for (const { hash, rows } of groups)
    if (held.has(hash) && !seen.has(hash)) {
      seen.add(hash)
      items.push(...rows)
    }
  const text = kinds.has('text')
  return {
    ...{ name, train, cut, dataHash: await sha256Of(source) },
    description: options.description ?? basename(data),
    metric: text ? 'next_token_accuracy' : 'exact_match',
    unit: text ? 'token' : 'item',
    chance: 0,
    example: exampleOf(items[0], options.encoding.tokenizer, text),
    items: () => items,
    row(random, tokens) {
      for (let tries = 0; tries < 1000; tries++) {
        const row = cutRow(random.pick(train), tokens)
        if (row.weights.some((weight) => weight > 0)) return padRowsTo([row], tokens)[0]
      }
      throw new RangeError(`Cannot draw rows of ${tokens} tokens from ${data}: what is learned lies behind them`)
    },
  }
}

function toRow({ ids, trained }: EncodedRow): Row & { readonly weights: Float32Array } {
  const size = ids.length - 1
  return {
    ids: Uint32Array.from(ids),
    // A weight belongs to the prediction of the next token, so it stands one place before its token.
    weights: Float32Array.from({ length: size }, (_, i) => (trained[i + 1] ? 1 : 0)),
  }
}

function cutRow({ ids, weights }: Row, tokens: number): { readonly ids: number[]; readonly weights: number[] } {
  return { ids: Array.from(ids).slice(0, tokens + 1), weights: Array.from(weights).slice(0, tokens) }
}

function hashOf(rows: readonly Row[]): string {
  return sha256(JSON.stringify(rows.map(({ ids }) => [...Array.from(ids)])))
}

function exampleOf(item: Row, tokenizer: Tokenizer, text: boolean): Capability['example'] {
  const ids = Array.from(item.ids)
  const first = text ? Math.ceil(ids.length / 2) : Array.from(item.weights).findIndex((weight) => weight > 0) + 1
  const prompt = tokenizer.decode(ids.slice(0, first))
  return text ? { prompt } : { prompt, answer: tokenizer.decode(ids.slice(first)) }
}
