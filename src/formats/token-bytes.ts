/** The parts of a tokenizer.json that say how its tokens are spelled. */
interface TokenizerJson {
  readonly model?: { readonly vocab?: Readonly<Record<string, number>>; readonly type?: string }
  readonly decoder?: object | null
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[]
}

/**
 * The bytes that each token stands for inside a text, by its id; none for special tokens and ids without a token.
 * Byte-level BPE writes bytes as letters; SentencePiece writes a space as ▁ and single bytes as <0x0A>; all others are
 * their own text.
 * @param json the parsed tokenizer.json.
 * @throws SyntaxError when tokens do not stand for bytes, as in WordPiece, which drops white space.
 */
export function tokenBytes(json: object): (Uint8Array | undefined)[] {
  const { model, decoder, added_tokens: added = [] } = json as TokenizerJson
  const kinds = JSON.stringify(decoder ?? null)
  if (model?.type === 'WordPiece' || kinds.includes('"WordPiece"'))
    throw new SyntaxError('Cannot tell the bytes of tokens: WordPiece drops white space')
  const byteLevel = kinds.includes('"ByteLevel"')
  const marksSpaces = kinds.includes('▁') || kinds.includes('"Metaspace"')
  const fallsBack = kinds.includes('"ByteFallback"')
  const utf8 = new TextEncoder()
  const plain = (text: string) => utf8.encode(marksSpaces ? text.replaceAll('▁', ' ') : text)
  const found: (Uint8Array | undefined)[] = []
  for (const [text, id] of Object.entries(model?.vocab ?? {})) {
    const single = fallsBack ? /^<0x([\dA-F]{2})>$/.exec(text) : null
    found[id] = single ? Uint8Array.of(Number.parseInt(single[1], 16)) : byteLevel ? bytesOfLetters(text) : plain(text)
  }
  // An added token is its text, unless it is special; it may stand in the vocabulary as well. Gemma's runs of spaces are such.
  for (const { id, content, special } of added) found[id] = special ? undefined : plain(content)
  return Array.from(found)
}

/** Bytes by the letters that byte-level BPE writes them as: printable ones as themselves, the others from U+0100 on. */
const byteOfLetter = new Map<string, number>()
let next = 0x100
for (let value = 0; value < 256; value++) {
  const printable = (value >= 33 && value <= 126) || (value >= 161 && value <= 172) || value >= 174
  byteOfLetter.set(String.fromCharCode(printable ? value : next++), value)
}

function bytesOfLetters(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) {
    const value = byteOfLetter.get(text[i])
    if (value === undefined) return undefined
    bytes[i] = value
  }
  return bytes
}
