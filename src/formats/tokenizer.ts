import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { tokenBytes } from './token-bytes.ts'

/** Turns text into token ids and back. */
export interface Tokenizer {
  /** Number of ids. */
  readonly size: number
  /**
   * Ids of `text`; nothing is added at its ends.
   * @throws RangeError naming the first character that the vocabulary lacks.
   */
  encode(text: string): number[]
  /** Text of `ids`, special tokens spelled out; ids without a token give nothing. */
  decode(ids: readonly number[]): string
  /** Ids of the special tokens, by their spelling. Only {@link encodeWithSpecials} makes them. */
  readonly specials: ReadonlyMap<string, number>
  /**
   * The bytes of each token inside a text, by its id; none for special tokens and ids without one.
   * @throws SyntaxError when tokens of this kind do not stand for bytes.
   */
  bytes(): readonly (Uint8Array | undefined)[]
}

/** Ids of `text` in which special tokens are recognised. For templates; never give it what a person wrote. */
export function encodeWithSpecials(tokenizer: Tokenizer, text: string): number[] {
  const spellings = [...tokenizer.specials.keys()].sort((a, b) => b.length - a.length)
  if (spellings.length === 0) return tokenizer.encode(text)
  const pattern = new RegExp(
    `(${spellings.map((spelling) => spelling.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|')})`,
  )
  return text
    .split(pattern)
    .flatMap((part, i) => (i % 2 === 1 ? [tokenizer.specials.get(part)!] : part === '' ? [] : tokenizer.encode(part)))
}

/**
 * A tokenizer from the JSON of a tokenizer.json. Special tokens are never made from text.
 * @param json the parsed tokenizer.json.
 * @param config the parsed tokenizer_config.json, where there is one.
 * @throws SyntaxError when it is not a tokenizer.
 */
export function loadTokenizer(json: object, config: object = {}): Tokenizer {
  let inner: HuggingFaceTokenizer
  try {
    inner = new HuggingFaceTokenizer(withoutSpecialTokens(json), config)
  } catch (error) {
    throw new SyntaxError(`Cannot read tokenizer.json: ${error instanceof Error ? error.message : String(error)}`)
  }
  const { model, pre_tokenizer, normalizer } = json as TokenizerJson
  const vocabulary = model?.vocab ?? {}
  const added = (json as { added_tokens?: AddedToken[] }).added_tokens ?? []
  const specials = new Map(added.flatMap(({ content, id, special }) => (special ? [[content, id]] : [])))
  const spellings = new Map([...specials].map(([content, id]) => [id, content]))
  const byteLevel = JSON.stringify((json as { decoder?: unknown }).decoder ?? null).includes('"ByteLevel"')
  const size = new Set([...Object.values(vocabulary), ...added.map(({ id }) => id)]).size
  let spelled: (Uint8Array | undefined)[] | undefined
  // Such a model drops a character that it lacks, without a word: it is looked up first.
  const dropsUnknown = !model?.unk_token && !model?.byte_fallback && !pre_tokenizer && !normalizer
  return {
    size,
    specials,
    encode(text) {
      const missing = dropsUnknown ? [...text].find((character) => !Object.hasOwn(vocabulary, character)) : undefined
      if (missing !== undefined)
        throw new RangeError(
          `Cannot encode ${JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)}: the vocabulary lacks ${JSON.stringify(missing)}`,
        )
      return inner.encode(text, { add_special_tokens: false }).ids
    },
    decode(ids) {
      let text = ''
      let plain: number[] = []
      const flush = () => {
        if (plain.length > 0)
          text += inner.decode(plain, { skip_special_tokens: false, clean_up_tokenization_spaces: false })
        plain = []
      }
      for (const id of ids) {
        const special = spellings.get(id)
        // A byte-level decoder would garble a special token; others need it in its place, for what they do at the start.
        if (special === undefined || (!byteLevel && inner.id_to_token(id) !== undefined)) {
          if (inner.id_to_token(id) !== undefined) plain.push(id)
        } else {
          flush()
          text += special
        }
      }
      flush()
      return text
    },
    bytes() {
      spelled ??= tokenBytes(json)
      return spelled
    },
  }
}

interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special?: boolean
}

/** The parts of a tokenizer.json that decide what happens to unknown characters. */
interface TokenizerJson {
  readonly model?: {
    readonly vocab?: Record<string, number>
    readonly unk_token?: string | null
    readonly byte_fallback?: boolean
  }
  readonly pre_tokenizer?: object | null
  readonly normalizer?: object | null
}

/** `json` with its special tokens taken out, so that text which spells one stays text. */
function withoutSpecialTokens(json: object): object {
  const { added_tokens: added = [], pre_tokenizer: cut } = json as {
    added_tokens?: { special?: boolean }[]
    pre_tokenizer?: object | null
  }
  return { ...json, added_tokens: added.filter((token) => !token.special), pre_tokenizer: withAllDigits(cut ?? null) }
}

/** The same pre-tokenizer with digits of every script cut, as Rust's `is_numeric` sees them; the library knows ASCII's. */
function withAllDigits(step: object | null): object | null {
  const { type, pretokenizers, individual_digits } = (step ?? {}) as {
    type?: unknown
    pretokenizers?: unknown
    individual_digits?: unknown
  }
  if (type === 'Sequence' && Array.isArray(pretokenizers))
    return { ...step, pretokenizers: pretokenizers.map((inner) => withAllDigits(inner as object)) }
  if (type !== 'Digits') return step
  const pattern = { Regex: individual_digits ? '\\p{N}' : '\\p{N}+' }
  return { type: 'Split', pattern, behavior: 'Isolated', invert: false }
}

/**
 * Whether a tokenizer puts its first token in front of a text: by its settings, or by the template in its post-processor.
 * @param settings the parsed tokenizer_config.json.
 */
export function asksForBos(tokenizerJson: object, settings: object): boolean {
  const { add_bos_token: asked, bos_token: token } = settings as { add_bos_token?: unknown; bos_token?: unknown }
  if (typeof asked === 'boolean') return asked
  const text = typeof token === 'object' ? (token as { content?: unknown } | null)?.content : token
  const { post_processor: after } = tokenizerJson as { post_processor?: unknown }
  return typeof text === 'string' && JSON.stringify(after ?? null).includes(JSON.stringify(text))
}

/** Newline, then the printable characters of ASCII: 96 symbols, newline having id 0. */
export const asciiAlphabet = `\n${Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('')}`

/** The tokenizer.json of a vocabulary of single characters, ids in the order of `alphabet`. */
export function characterTokenizer(alphabet: string): object {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Fuse' },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries([...alphabet].map((character, id) => [character, id])),
      merges: [],
    },
  }
}
