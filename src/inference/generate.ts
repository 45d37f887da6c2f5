import type { Tokenizer } from '../formats/tokenizer.ts'
import type { Sampling } from '../kernels/sampler.ts'
import type { LinearUpdates } from '../models/decoder.ts'
import type { Engine, MadeToken } from './engine.ts'
import { TextStream } from './text-stream.ts'

/** How text is continued. */
export interface GenerateOptions extends Sampling {
  readonly updates?: LinearUpdates
  /** Most tokens to make; 64 unless told. */
  readonly maxTokens?: number
  /** Seed of the draws; 42 unless told. */
  readonly seed?: number
  /** Whether an end token of the model ends the answer; true unless told. */
  readonly endAtEos?: boolean
  readonly signal?: AbortSignal
}

/**
 * Continues a sequence token by token until the model ends it.
 * @param ids the prompt, one or more ids.
 * @yields each new token; the one that ends the answer is not among them.
 * @throws RangeError when prompt and answer together would pass the context: nothing is cut without being told.
 */
export async function* generate(
  engine: Engine,
  ids: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<MadeToken> {
  const { maxTokens = 64, endAtEos = true, updates, signal, ...sampling } = options
  const ends = new Set(endAtEos ? engine.model.config.eosIds : [])
  for await (const [token] of engine.run([{ ids, maxTokens, ...sampling }], { updates, signal })) {
    if (!token || ends.has(token.id)) return
    yield token
  }
}

/** A piece of an answer. */
export interface TextPiece {
  readonly text: string
  /** Tokens made so far. */
  readonly tokens: number
}

/**
 * The same as text, piece by piece.
 * @param options.stop strings that end the answer; they are not part of it.
 */
export async function* generateText(
  engine: Engine,
  tokenizer: Tokenizer,
  ids: readonly number[],
  { stop = [], ...options }: GenerateOptions & { readonly stop?: readonly string[] } = {},
): AsyncGenerator<TextPiece> {
  const stream = new TextStream(tokenizer, stop)
  let tokens = 0
  for await (const { id } of generate(engine, ids, options)) {
    tokens++
    const text = stream.push(id)
    if (text !== '' || stream.stopped) yield { text, tokens }
    if (stream.stopped) return
  }
  const text = stream.end()
  if (text !== '') yield { text, tokens }
}
