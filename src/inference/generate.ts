import type { Tokenizer } from '../formats/tokenizer.ts'
import type { Constraint } from '../grammar/constraint.ts'
import type { Sampling } from '../kernels/sampler.ts'
import type { LinearUpdates } from '../models/decoder.ts'
import { type AnswerForm, byteExact, constraintOf } from './constraints.ts'
import type { Engine, MadeToken } from './engine.ts'
import { TextStream } from './text-stream.ts'

/** How tokens are made. */
export interface GenerateOptions extends Sampling {
  readonly updates?: LinearUpdates
  /** Most tokens to make; 64 unless told. */
  readonly maxTokens?: number
  /** Seed of the draws; 42 unless told. */
  readonly seed?: number
  /** Whether an end token of the model ends the answer; true unless told. One under a constraint always does. */
  readonly endAtEos?: boolean
  readonly signal?: AbortSignal
  /** What the text must be. */
  readonly constraint?: Constraint
}

/**
 * Why an answer ended: `stop`, by itself or at a stop string; `length`, its tokens were used up, so that under a schema it
 * is not whole; `cancelled`, by the caller's signal.
 */
export type Finish = 'stop' | 'length' | 'cancelled'

/**
 * Continues a sequence token by token until the model ends it.
 * @param ids the prompt, one or more ids.
 * @yields each new token; the one that ends the answer is not among them.
 * @returns why it ended.
 * @throws RangeError when prompt and answer together would pass the context: nothing is cut without being told.
 */
export async function* generate(
  engine: Engine,
  ids: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<MadeToken, Finish, void> {
  const { maxTokens = 64, endAtEos = true, updates, signal, ...row } = options
  const ends = new Set(endAtEos || row.constraint ? engine.model.config.eosIds : [])
  for await (const [token] of engine.run([{ ids, maxTokens, ...row }], { updates, signal })) {
    if (!token || ends.has(token.id)) return 'stop'
    yield token
    if (token.last) return 'stop'
  }
  return signal?.aborted ? 'cancelled' : 'length'
}

/** A piece of an answer. */
export interface TextPiece {
  readonly text: string
  /** Tokens made so far. */
  readonly tokens: number
  /** Why the answer ended; with its last piece, whose text may be empty. */
  readonly finish?: Finish
}

/** How text is continued. */
export interface TextOptions extends Omit<GenerateOptions, 'constraint'>, AnswerForm {
  /** Strings that end the answer; they are not part of it. */
  readonly stop?: readonly string[]
}

/**
 * The same as text, piece by piece.
 * @param options.schema a JSON Schema: unless it finishes by `length` or is stopped, the answer parses and validates.
 * @param options.choices texts of which the answer is one.
 * @throws SchemaError when the schema cannot be followed, before anything is made.
 */
export async function* generateText(
  engine: Engine,
  tokenizer: Tokenizer,
  ids: readonly number[],
  { stop = [], schema, choices, ...options }: TextOptions = {},
): AsyncGenerator<TextPiece> {
  const constraint = constraintOf({ schema, choices }, tokenizer, engine.model.config)
  const stream = new TextStream(constraint ? byteExact(tokenizer) : tokenizer, stop)
  const tokens = generate(engine, ids, { ...options, constraint })
  let made = 0
  try {
    for (;;) {
      const next = await tokens.next()
      if (next.done) {
        yield { text: stream.end(), tokens: made, finish: next.value }
        return
      }
      made++
      const text = stream.push(next.value.id)
      if (stream.stopped) {
        yield { text, tokens: made, finish: 'stop' }
        return
      }
      if (text !== '') yield { text, tokens: made }
    }
  } finally {
    await tokens.return('cancelled')
  }
}
