import type { ChatTemplate } from '../formats/chat.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import type { Example } from './example.ts'

/** One sequence to learn from. */
export interface EncodedRow {
  readonly ids: ArrayLike<number>
  /** For each id, whether it is learned; the first never is. */
  readonly trained: ArrayLike<boolean | number>
}

/** What examples are encoded with. */
export interface Encoding {
  readonly tokenizer: Tokenizer
  /** Of the model; conversations need one. */
  readonly chat?: ChatTemplate
  /** Id in front of every text and prompt; conversations have what their template gives. */
  readonly bosId?: number
  /** Id behind every text and completion. */
  readonly eosId: number
  /** Most ids of a row; one more than what the model is run on. */
  readonly length: number
  /** What the template's clock shows, so that a run resumed on another day sees the same. */
  readonly now?: Date
}

/** The rows of an example, and how many ids were cut off or lost with a row in which nothing was left to learn. */
export interface EncodedExample {
  readonly rows: readonly EncodedRow[]
  readonly cut: number
}

/**
 * An example as ids: a conversation by the model's template with loss on the assistant's tokens alone; a completion with
 * loss behind its prompt; a text whole, in rows that overlap by one id.
 * @throws SyntaxError naming what is wrong, beginning with `place`.
 */
export function encodeExample(place: string, example: Example, encoding: Encoding): EncodedExample {
  const { tokenizer, eosId, length } = encoding
  const bos = encoding.bosId === undefined ? [] : [encoding.bosId]
  try {
    if (example.kind === 'text')
      return { rows: textRows([...bos, ...tokenizer.encode(example.text), eosId], length), cut: 0 }
    if (example.kind === 'completion') {
      const prompt = [...bos, ...tokenizer.encode(example.prompt)]
      const ids = [...prompt, ...tokenizer.encode(example.completion), eosId]
      return shortened([{ ids, trained: ids.map((_, i) => i >= prompt.length) }], length)
    }
    if (!encoding.chat)
      throw new SyntaxError('it is a conversation, and the model has no chat template: give one with --chat-template')
    const variables = example.tools === undefined ? undefined : { tools: example.tools }
    const options = { ...(variables && { variables }), ...(encoding.now && { now: encoding.now }) }
    return shortened(encoding.chat.encodeAnswers(tokenizer, example.messages, options), length)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) throw new SyntaxError(`${place}: ${error.message}`)
    throw error
  }
}

function textRows(ids: readonly number[], length: number): EncodedRow[] {
  const rows: EncodedRow[] = []
  for (let begin = 0; begin + 1 < ids.length; begin += length - 1) {
    const part = ids.slice(begin, begin + length)
    rows.push({ ids: part, trained: part.map((_, i) => i > 0) })
  }
  return rows
}

/** Rows of at most `length` ids, the ends cut off, without those that have nothing left to learn. */
function shortened(rows: readonly EncodedRow[], length: number): EncodedExample {
  const kept: EncodedRow[] = []
  let cut = 0
  for (const { ids, trained } of rows) {
    const size = Math.min(ids.length, length)
    const learned = Array.from({ length: size }, (_, i) => i > 0 && Boolean(trained[i]))
    const useful = learned.includes(true)
    cut += useful ? ids.length - size : ids.length
    if (useful) kept.push({ ids: Array.from(ids).slice(0, size), trained: learned })
  }
  return { rows: kept, cut }
}
