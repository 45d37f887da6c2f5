import type { Tokenizer } from '../formats/tokenizer.ts'

/** A text in characters that a tokenizer knows. */
export interface FittedText {
  readonly text: string
  /** Characters that were replaced or left out. */
  readonly changed: number
}

/** Characters of typesetting, and how a typewriter writes them. */
const plain: Readonly<Record<string, string>> = {
  ...{ '‘': "'", '’': "'", '‚': "'", '“': '"', '”': '"', '„': '"', '«': '"', '»': '"' },
  ...{ '–': '-', '—': '-', '−': '-', '…': '...', '×': 'x', ß: 'ss', æ: 'ae', ø: 'o' },
}

/**
 * Replaces what the vocabulary lacks: line ends and tabs by spaces, typographic signs by plain ones, letters with accents
 * by those without. What is still unknown is left out.
 */
export function fitText(tokenizer: Tokenizer, text: string): FittedText {
  const isKnown = (part: string) => {
    try {
      tokenizer.encode(part)
      return true
    } catch (error) {
      if (error instanceof RangeError) return false
      throw error
    }
  }
  if (isKnown(text)) return { text, changed: 0 }
  const known = new Map<string, string>()
  let fitted = ''
  let changed = 0
  for (const character of text.replaceAll('\r\n', '\n')) {
    let part = known.get(character)
    if (part === undefined) {
      const bare = character.normalize('NFKD').replace(/\p{M}/gu, '')
      const candidates = [character, /\s/.test(character) ? ' ' : (plain[character] ?? bare), '']
      part = candidates.find(isKnown) ?? ''
      known.set(character, part)
    }
    if (part !== character) changed++
    fitted += part
  }
  return { text: fitted, changed }
}
