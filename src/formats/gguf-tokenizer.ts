import type { GgufValue } from './gguf.ts'

/** A tokenizer as the files of a Hugging Face folder hold it. */
export interface TokenizerFiles {
  /** What tokenizer.json would hold. */
  readonly json: object
  /** What tokenizer_config.json would hold: chat_template, bos_token, eos_token, add_bos_token and the like. */
  readonly settings: Readonly<Record<string, string | boolean>>
}

/** Kinds of token, as GGUF numbers them. */
const kind = { unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 }

const gpt2Digits = [{ type: 'Digits', individual_digits: true }, byteLevel(true)]
const llama3Split =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const qwen2Split = llama3Split.replace('\\p{N}{1,3}', '\\p{N}')
const tekkenSplit =
  '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+' +
  '|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*' +
  '|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const split = (regex: string) => [
  { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false },
  byteLevel(false),
]

interface PreTokenizer {
  readonly steps: readonly object[]
  /** Whether a word of the vocabulary is taken whole, whatever the merges say. */
  readonly ignoreMerges?: boolean
  readonly normalizer?: object
}

/** How text is cut before byte-pair encoding, by `tokenizer.ggml.pre`. */
const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  'gpt-2': { steps: [byteLevel(true)] },
  smollm: { steps: gpt2Digits },
  starcoder: { steps: gpt2Digits },
  'llama-bpe': { steps: split(llama3Split), ignoreMerges: true },
  qwen2: { steps: split(qwen2Split), normalizer: { type: 'NFC' } },
  'deepseek-r1-qwen': { steps: split(qwen2Split) },
  tekken: { steps: split(tekkenSplit), ignoreMerges: true },
}

function byteLevel(regex: boolean): object {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: regex }
}

/**
 * The tokenizer that a GGUF file's metadata describes: byte-level BPE (gpt2) with the pre-tokenizers of SmolLM, Llama 3,
 * Qwen, Mistral's Tekken, StarCoder and GPT-2, or SentencePiece BPE (llama).
 * @throws SyntaxError naming the key that is missing, wrong or not supported.
 */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, GgufValue>): TokenizerFiles {
  const fault = (reason: string) => new SyntaxError(`Cannot read the GGUF file's tokenizer: ${reason}`)
  const value = (key: string) => metadata.get(`tokenizer.ggml.${key}`)
  const strings = (key: string): string[] | undefined => {
    const list = value(key)
    if (list === undefined) return undefined
    if (!Array.isArray(list) || list.some((item) => typeof item !== 'string'))
      throw fault(`tokenizer.ggml.${key} must be an array of strings`)
    return list
  }
  const tokens = strings('tokens')
  if (!tokens || tokens.length === 0) throw fault('tokenizer.ggml.tokens is missing')
  if (new Set(tokens).size !== tokens.length) throw fault('tokenizer.ggml.tokens holds a token twice')
  const kinds = (value('token_type') ?? new Int32Array(tokens.length).fill(1)) as ArrayLike<number>
  if (typeof kinds !== 'object' || kinds.length !== tokens.length || typeof kinds[0] !== 'number')
    throw fault('tokenizer.ggml.token_type must be as many numbers as there are tokens')
  const model = value('model')
  const shared = {
    version: '1.0',
    truncation: null,
    padding: null,
    post_processor: null,
  }
  const bpe = { type: 'BPE', dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null }

  let json: object
  if (model === 'gpt2') {
    const pre = value('pre')
    const cut = typeof pre === 'string' && Object.hasOwn(preTokenizers, pre) ? preTokenizers[pre] : undefined
    if (!cut)
      throw fault(
        `tokenizer.ggml.pre is ${JSON.stringify(pre)}; supported are ${Object.keys(preTokenizers).join(', ')}`,
      )
    const merges = strings('merges')
    if (!merges) throw fault('tokenizer.ggml.merges is missing')
    const pairs = merges.map((merge) => {
      // The space between the parts; a part may not hold one, for byte-level text has none.
      const at = merge.indexOf(' ', 1)
      if (at < 0 || at === merge.length - 1) throw fault(`the merge ${JSON.stringify(merge)} has not two parts`)
      return [merge.slice(0, at), merge.slice(at + 1)]
    })
    const plain = {
      ...bpe,
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: cut.ignoreMerges ?? false,
    }
    json = {
      ...shared,
      added_tokens: addedTokens(tokens, kinds),
      normalizer: cut.normalizer ?? null,
      pre_tokenizer: { type: 'Sequence', pretokenizers: cut.steps },
      decoder: byteLevel(true),
      model: { ...plain, vocab: vocabularyOf(tokens), merges: pairs },
    }
  } else if (model === 'llama') {
    const scores = value('scores') as ArrayLike<number> | undefined
    if (typeof scores !== 'object' || scores.length !== tokens.length || typeof scores[0] !== 'number')
      throw fault('tokenizer.ggml.scores must be as many numbers as there are tokens')
    const gemma = /^gemma/.test(String(metadata.get('general.architecture')))
    // Gemma's files spell runs of spaces as they are; in the vocabulary they are runs of ▁.
    const spelled = tokens.map((token) => (spaces.test(token) ? '▁'.repeat(token.length) : token))
    const prefix = value('add_space_prefix') ?? true
    const unknown = value('unknown_token_id') ?? 0
    const replace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
    const restore = { type: 'Replace', pattern: { String: '▁' }, content: ' ' }
    const decoders = [restore, { type: 'ByteFallback' }, { type: 'Fuse' }]
    const plain = {
      ...bpe,
      unk_token: spelled[Number(unknown)] ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
    }
    json = {
      ...shared,
      added_tokens: addedTokens(spelled, kinds),
      normalizer: prefix ? { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, replace] } : replace,
      pre_tokenizer: null,
      decoder: {
        type: 'Sequence',
        decoders: prefix ? [...decoders, { type: 'Strip', content: ' ', start: 1, stop: 0 }] : decoders,
      },
      model: { ...plain, vocab: vocabularyOf(spelled), merges: mergesOf(spelled, kinds, gemma ? undefined : scores) },
    }
  } else throw fault(`tokenizer.ggml.model is ${JSON.stringify(model)}; supported are gpt2 and llama`)
  return { json, settings: settingsOf(metadata, tokens, model) }
}

function settingsOf(metadata: ReadonlyMap<string, GgufValue>, tokens: readonly string[], model: string) {
  const settings: Record<string, string | boolean> = {}
  for (const [name, key] of [
    ['bos_token', 'bos_token_id'],
    ['eos_token', 'eos_token_id'],
    ['pad_token', 'padding_token_id'],
    ['unk_token', 'unknown_token_id'],
  ]) {
    const id = metadata.get(`tokenizer.ggml.${key}`)
    if (typeof id === 'number' && tokens[id] !== undefined) settings[name] = tokens[id]
  }
  const addBos = metadata.get('tokenizer.ggml.add_bos_token')
  settings.add_bos_token = typeof addBos === 'boolean' ? addBos : model === 'llama'
  settings.add_eos_token = metadata.get('tokenizer.ggml.add_eos_token') === true
  const template = metadata.get('tokenizer.chat_template')
  if (typeof template === 'string') settings.chat_template = template
  return settings
}

function vocabularyOf(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]))
}

const spaces = /^ {2,}$/

/** Control tokens, special; and those that text is searched for before anything else, ▁▁ among them. */
function addedTokens(tokens: readonly string[], kinds: ArrayLike<number>): object[] {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false }
  return tokens.flatMap((content, id) =>
    kinds[id] === kind.control || kinds[id] === kind.userDefined
      ? [{ id, content, ...flags, special: kinds[id] === kind.control }]
      : [],
  )
}

/**
 * The merges that SentencePiece's rule (join the neighbours whose union scores best) amounts to. Control, unknown,
 * unused and byte tokens take no part, so that text never becomes one of them. Runs of one character that are tokens by
 * decree (Gemma's spaces) grow from the left to the longest that there is, before anything else is joined.
 * @param scores higher is better; the order of the tokens where there are none.
 */
function mergesOf(tokens: readonly string[], kinds: ArrayLike<number>, scores?: ArrayLike<number>): [string, string][] {
  const skipped = new Set([kind.unknown, kind.control, kind.unused, kind.byte])
  const ids = new Map<string, number>()
  for (const [id, token] of tokens.entries()) if (!skipped.has(kinds[id])) ids.set(token, id)
  const runs: [string, string][] = []
  for (const [token, id] of ids) {
    if (kinds[id] !== kind.userDefined || !/^(.)\1+$/su.test(token)) continue
    for (let cut = 1; cut < token.length; cut++)
      if (ids.has(token.slice(0, cut)) && ids.has(token.slice(cut))) runs.push([token.slice(0, cut), token.slice(cut)])
  }
  runs.sort(([a, b], [c, d]) => c.length - a.length || d.length - b.length || (a < c ? -1 : 1))
  const joinedFirst = new Set(runs.map((pair) => pair.join('')))
  const order = [...ids.values()].sort((a, b) => (scores ? scores[b] - scores[a] : 0) || a - b)
  const merges = runs
  for (const id of order) {
    const token = tokens[id]
    if (joinedFirst.has(token)) continue
    const found: [left: string, right: string, leftId: number, rightId: number][] = []
    for (let cut = 1; cut < token.length; cut++) {
      const left = ids.get(token.slice(0, cut))
      if (left === undefined) continue
      const right = ids.get(token.slice(cut))
      if (right !== undefined) found.push([tokens[left], tokens[right], left, right])
    }
    // The shorter left part first, as transformers does; the rest only makes the order certain.
    found.sort((a, b) => a[0].length - b[0].length || a[2] - b[2] || a[3] - b[3])
    for (const [left, right] of found) merges.push([left, right])
  }
  return merges
}
