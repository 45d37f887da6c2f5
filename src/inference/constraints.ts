import type { Tokenizer } from '../formats/tokenizer.ts'
import { Constraint } from '../grammar/constraint.ts'
import { choiceGrammar, jsonGrammar } from '../grammar/json-schema.ts'
import { Vocabulary } from '../grammar/vocabulary.ts'

/** What an answer must be: at most one of the two. */
export interface AnswerForm {
  /** A JSON Schema that the answer follows: see `jsonGrammar` for what is supported. */
  readonly schema?: unknown
  /** Texts of which the answer is one. */
  readonly choices?: readonly string[]
}

/** Constraints that are kept for the next answer of their kind. */
const mostKept = 8

interface Kept {
  /** The ids of end tokens, which are no text even where they are spelled as one. */
  readonly ends: string
  readonly vocabulary: Vocabulary
  /** By their form and the number of logits; the one used last is last. */
  readonly constraints: Map<string, Constraint>
}

const kept = new WeakMap<Tokenizer, Kept>()

/**
 * The constraint of a form. It is kept with the tokenizer, for making one takes a while with a large vocabulary.
 * @param model its number of logits, and its end tokens.
 * @returns undefined when the form asks for nothing.
 * @throws SchemaError or RangeError when it cannot be followed; SyntaxError when the tokenizer cannot follow any.
 */
export function constraintOf(
  { schema, choices }: AnswerForm,
  tokenizer: Tokenizer,
  model: { readonly vocabularySize: number; readonly eosIds: readonly number[] },
): Constraint | undefined {
  if (schema === undefined && choices === undefined) return undefined
  if (schema !== undefined && choices !== undefined)
    throw new RangeError('Cannot follow a schema and choose among texts at once: put the texts into an enum')
  let own = kept.get(tokenizer)
  const ends = model.eosIds.join()
  if (own?.ends !== ends) {
    const bytes = tokenizer.bytes().map((each, id) => (model.eosIds.includes(id) ? undefined : each))
    own = { ends, vocabulary: new Vocabulary(bytes), constraints: new Map() }
    kept.set(tokenizer, own)
  }
  const { vocabulary, constraints } = own
  const key = JSON.stringify([schema, choices, model.vocabularySize])
  let constraint = constraints.get(key)
  constraints.delete(key)
  if (!constraint) {
    const grammar = choices ? choiceGrammar(choices) : jsonGrammar(schema)
    constraint = new Constraint(grammar, vocabulary, model.vocabularySize, model.eosIds)
  }
  constraints.set(key, constraint)
  if (constraints.size > mostKept) constraints.delete(constraints.keys().next().value!)
  return constraint
}

/** The tokenizer with texts made of the bytes of tokens, as constraints see them: nothing is stripped at their start. */
export function byteExact(tokenizer: Tokenizer): Tokenizer {
  const all = tokenizer.bytes()
  return {
    ...tokenizer,
    decode(ids) {
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
      return ids.map((id) => decoder.decode(all[id], { stream: true })).join('') + decoder.decode()
    },
  }
}
