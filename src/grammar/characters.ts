import { type ByteRange, byte, either, literal, type Piece, sequence } from './piece.ts'

/** Characters by their code points, in ranges that ascend and do not touch. Surrogates are never meant. */
export type CharacterSet = readonly (readonly [low: number, high: number])[]

const last = 0x10ffff
const surrogates = [0xd800, 0xdfff] as const

/** All characters. */
export const anyCharacter: CharacterSet = [
  [0, surrogates[0] - 1],
  [surrogates[1] + 1, last],
]

/** The characters of all sets together. */
export function unionOf(...sets: CharacterSet[]): CharacterSet {
  const merged: [number, number][] = []
  for (const [low, high] of sets.flat().sort((a, b) => a[0] - b[0])) {
    const before = merged.at(-1)
    if (before && low <= before[1] + 1) before[1] = Math.max(before[1], high)
    else merged.push([low, high])
  }
  return merged
}

/** The characters that a set lacks. */
export function complementOf(set: CharacterSet): CharacterSet {
  const rest: [number, number][] = []
  let next = 0
  for (const [low, high] of unionOf(set, [surrogates])) {
    if (low > next) rest.push([next, low - 1])
    next = high + 1
  }
  if (next <= last) rest.push([next, last])
  return rest
}

/** The characters of `set` that `without` lacks. */
export function differenceOf(set: CharacterSet, without: CharacterSet): CharacterSet {
  return complementOf(unionOf(complementOf(set), without))
}

/** A character of the set in UTF-8. */
export function utf8(set: CharacterSet): Piece {
  const single: ByteRange[] = []
  const longer: Piece[] = []
  for (const [low, high] of differenceOf(set, []))
    for (const ranges of encodedRanges(low, high)) {
      if (ranges.length === 1) single.push(ranges[0])
      else longer.push(sequence(...ranges.map((range) => byte(range))))
    }
  return either(...(single.length > 0 ? [byte(...single)] : []), ...longer)
}

/** Splits a range of code points so that each part is a product of byte ranges. */
function encodedRanges(low: number, high: number): ByteRange[][] {
  for (const most of [0x7f, 0x7ff, 0xffff])
    if (low <= most && high > most) return [...encodedRanges(low, most), ...encodedRanges(most + 1, high)]
  const length = low <= 0x7f ? 1 : low <= 0x7ff ? 2 : low <= 0xffff ? 3 : 4
  for (let i = 1; i < length; i++) {
    const mask = 2 ** (6 * i) - 1
    if (low - (low & mask) === high - (high & mask)) continue
    if ((low & mask) !== 0) return [...encodedRanges(low, low | mask), ...encodedRanges((low | mask) + 1, high)]
    if ((high & mask) !== mask)
      return [...encodedRanges(low, high - (high & mask) - 1), ...encodedRanges(high - (high & mask), high)]
  }
  const [from, to] = [low, high].map((point) => new TextEncoder().encode(String.fromCodePoint(point)))
  return [Array.from(from, (value, i) => [value, to[i]] as const)]
}

/** What JSON does not let stand for itself inside a string. */
const special: CharacterSet = unionOf(
  [[0, 0x1f]],
  [...'"\\'].map((character) => [character.charCodeAt(0), character.charCodeAt(0)] as const),
)

/** A character of the set inside a JSON string, spelled as JSON.stringify spells it. */
export function jsonCharacter(set: CharacterSet): Piece {
  const escaped: Piece[] = []
  for (const [low, high] of special)
    for (let point = low; point <= high; point++)
      if (contains(set, point)) escaped.push(literal(JSON.stringify(String.fromCodePoint(point)).slice(1, -1)))
  const plain = differenceOf(set, special)
  return either(...(plain.length > 0 ? [utf8(plain)] : []), ...escaped)
}

/** Any character inside a JSON string, in any of its spellings but pairs of surrogates. */
export function anyJsonCharacter(): Piece {
  const digit = (...ranges: string[]) =>
    byte(...ranges.map((range) => [range.charCodeAt(0), range.charCodeAt(range.length - 1)] as const))
  const hex = digit('09', 'AF', 'af')
  const unit = either(
    sequence(digit('09', 'AC', 'EF', 'ac', 'ef'), hex, hex, hex),
    sequence(digit('DD', 'dd'), digit('07'), hex, hex),
  )
  const short = byte(
    ...[...'"\\/bfnrt'].map((character) => [character.charCodeAt(0), character.charCodeAt(0)] as const),
  )
  const escaped = sequence(literal('\\'), either(short, sequence(literal('u'), unit)))
  return either(utf8(differenceOf(anyCharacter, special)), escaped)
}

/** Whether the set has a character. */
export function contains(set: CharacterSet, point: number): boolean {
  return set.some(([low, high]) => point >= low && point <= high)
}
