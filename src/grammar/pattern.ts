import { anyCharacter, type CharacterSet, complementOf, jsonCharacter, unionOf } from './characters.ts'
import { either, empty, type Piece, repeat, sequence } from './piece.ts'

const range = (low: string, high = low) => [low.codePointAt(0)!, high.codePointAt(0)!] as const
const classes: Readonly<Record<string, CharacterSet>> = {
  d: [range('0', '9')],
  w: unionOf([range('0', '9'), range('A', 'Z'), range('a', 'z'), range('_')]),
  s: unionOf(
    [range('\t', '\r'), range(' '), range('\u00a0'), range('\u1680'), range('\u2000', '\u200a')],
    [range('\u2028', '\u2029'), range('\u202f'), range('\u205f'), range('\u3000'), range('\ufeff')],
  ),
}
const lineEnds: CharacterSet = unionOf([range('\n'), range('\r'), range('\u2028', '\u2029')])
const controls: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', 0: '\0' }

/**
 * The inside of a JSON string that a regular expression of JavaScript (flag u) finds something in: literals, classes,
 * groups, alternatives, counts, and ^ and $ at the ends. Characters are spelled as JSON.stringify does.
 * @throws RangeError naming what is not supported.
 */
export function patternPiece(pattern: string): Piece {
  try {
    new RegExp(pattern, 'u')
  } catch (error) {
    throw new RangeError((error as Error).message)
  }
  return new PatternReader(pattern).read()
}

class PatternReader {
  readonly #characters: string[]
  #at = 0

  constructor(pattern: string) {
    this.#characters = [...pattern]
  }

  read(): Piece {
    const anything = repeat(jsonCharacter(anyCharacter), 0)
    const options: Piece[] = []
    do {
      const begins = this.#take('^')
      const inside = this.#terms(true)
      const ends = this.#take('$')
      if (this.#at < this.#characters.length && this.#characters[this.#at] !== '|') this.#refuse('$ inside a pattern')
      options.push(sequence(begins ? empty : anything, inside, ends ? empty : anything))
    } while (this.#take('|'))
    return either(...options)
  }

  #refuse(what: string): never {
    throw new RangeError(`${what} is not supported in patterns`)
  }

  #take(wanted: string): boolean {
    if (this.#characters[this.#at] !== wanted) return false
    this.#at++
    return true
  }

  #terms(outermost: boolean): Piece {
    const terms: Piece[] = []
    for (;;) {
      const next = this.#characters[this.#at]
      if (next === undefined || next === '|' || next === ')' || (next === '$' && outermost)) return sequence(...terms)
      terms.push(this.#counted(this.#atom()))
    }
  }

  #atom(): Piece {
    const next = this.#characters[this.#at++]
    if (next === '^' || next === '$') this.#refuse(`${next} inside a pattern`)
    if (next === '.') return jsonCharacter(complementOf(lineEnds))
    if (next === '[') return jsonCharacter(this.#class())
    if (next === '\\') return jsonCharacter(this.#escape())
    if (next !== '(') return jsonCharacter([range(next)])
    if (this.#take('?') && !this.#take(':')) this.#refuse(`(?${this.#characters[this.#at]}`)
    const options: Piece[] = []
    do options.push(this.#terms(false))
    while (this.#take('|'))
    this.#at++ // ) is there: the pattern is a regular expression
    return either(...options)
  }

  #counted(piece: Piece): Piece {
    const next = this.#characters[this.#at]
    let counts: [number, number] | undefined
    if (next === '*') counts = [0, Number.POSITIVE_INFINITY]
    else if (next === '+') counts = [1, Number.POSITIVE_INFINITY]
    else if (next === '?') counts = [0, 1]
    else if (next === '{') {
      const text = this.#characters.slice(this.#at, this.#characters.indexOf('}', this.#at)).join('')
      const [, least, comma, most] = /^\{(\d+)(,?)(\d*)$/.exec(text)!
      counts = [Number(least), most ? Number(most) : comma ? Number.POSITIVE_INFINITY : Number(least)]
      this.#at += text.length
    }
    if (!counts) return piece
    this.#at++
    this.#take('?') // a lazy count finds the same texts
    return repeat(piece, ...counts)
  }

  /** What stands behind a backslash. */
  #escape(): CharacterSet {
    const next = this.#characters[this.#at++]
    const lower = next.toLowerCase()
    if (Object.hasOwn(classes, lower)) return lower === next ? classes[lower] : complementOf(classes[lower])
    if (Object.hasOwn(controls, next)) return [range(controls[next])]
    if (next === 'x' || next === 'u') {
      const rest = this.#characters.slice(this.#at).join('')
      const [whole, inBraces, digits] = (next === 'x' ? /^()([\da-f]{2})/i : /^(?:\{([\da-f]+)\}|([\da-f]{4}))/i).exec(
        rest,
      )!
      this.#at += whole.length
      const point = Number.parseInt(inBraces || digits, 16)
      if (point >= 0xd800 && point <= 0xdfff) this.#refuse('a surrogate')
      return [[point, point]]
    }
    if (/[a-z\d]/i.test(next)) this.#refuse(`\\${next}`)
    return [range(next)]
  }

  #class(): CharacterSet {
    const negated = this.#take('^')
    let set: CharacterSet = []
    while (!this.#take(']')) {
      const low = this.#classPart()
      const spans = this.#characters[this.#at] === '-' && this.#characters[this.#at + 1] !== ']'
      if (!spans) {
        set = unionOf(set, low)
        continue
      }
      this.#at++
      set = unionOf(set, [[low[0][0], this.#classPart()[0][0]]])
    }
    return negated ? complementOf(set) : set
  }

  #classPart(): CharacterSet {
    const next = this.#characters[this.#at++]
    if (next !== '\\') return [range(next)]
    if (this.#take('b')) return [range('\b')]
    return this.#escape()
  }
}
