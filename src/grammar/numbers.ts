import { byte, either, empty, literal, optional, type Piece, repeat, sequence } from './piece.ts'

/** What a number must keep to. */
export interface NumberBounds {
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
}

/** Largest magnitude before the point: 15 digits, all of which JSON.parse keeps. */
const largest = 10 ** 15 - 1
const zero = 48
const digit = byte([zero, zero + 9])
const zeros = (least: number, most = least) => repeat(literal('0'), least, most)

/** A point and up to `most` digits. */
const fraction = (most: number) => sequence(literal('.'), repeat(digit, 1, most))
/** A fraction that is zero, however it is spelled. */
const noFraction = sequence(literal('.'), zeros(1, 16))
/** A fraction of up to `most` digits that is not zero. */
const someFraction = (most: number) =>
  sequence(
    literal('.'),
    either(
      ...Array.from({ length: most }, (_, i) =>
        sequence(zeros(i), byte([zero + 1, zero + 9]), repeat(digit, 0, most - 1 - i)),
      ),
    ),
  )

/**
 * A JSON number: up to 15 digits before the point, 16 behind it, and an exponent of up to two. With bounds there are at
 * most 15 digits and no exponent.
 * @throws RangeError when a bound is no whole number, or nothing lies between the bounds.
 */
export function numberPiece(bounds: NumberBounds): Piece {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = bounds
  if ([minimum, maximum, exclusiveMinimum, exclusiveMaximum].every((bound) => bound === undefined)) {
    const sign = optional(literal('-'))
    const whole = wholeBetween(0, largest)
    const exponent = sequence(byte([69, 69], [101, 101]), optional(byte([43, 43], [45, 45])), repeat(digit, 1, 2))
    return sequence(sign, whole, optional(fraction(16)), optional(exponent))
  }
  const { low, lowOpen, high, highOpen } = limitsOf(bounds)
  for (const bound of [low, high])
    if (!Number.isInteger(bound)) throw new RangeError(`the bounds of a number must be whole, got ${bound}`)
  const parts: Piece[] = []
  if (high >= 0) {
    const from = Math.max(low, 0)
    parts.push(...decimals(from, high, lowOpen && low >= 0, highOpen))
  }
  if (low < 0) {
    const from = Math.max(-high, 0)
    parts.push(...decimals(from, -low, highOpen && high <= 0, lowOpen).map((part) => sequence(literal('-'), part)))
  }
  if (parts.length === 0) throw new RangeError(`the bounds leave nothing between ${low} and ${high}`)
  return either(...parts)
}

/**
 * A whole JSON number without point or exponent, of up to 15 digits.
 * @throws RangeError when nothing lies between the bounds.
 */
export function integerPiece(bounds: NumberBounds): Piece {
  const limits = limitsOf(bounds)
  const low = limits.lowOpen ? Math.floor(limits.low) + 1 : Math.ceil(limits.low)
  const high = limits.highOpen ? Math.ceil(limits.high) - 1 : Math.floor(limits.high)
  const parts: Piece[] = []
  if (high >= 0 && low <= high) parts.push(wholeBetween(Math.max(low, 0), high))
  if (low < 0 && low <= high) parts.push(sequence(literal('-'), wholeBetween(Math.max(-high, 1), -low)))
  if (parts.length === 0)
    throw new RangeError(`the bounds leave no whole number between ${limits.low} and ${limits.high}`)
  return either(...parts)
}

/** The tighter bound of each side; open when it is not among the numbers itself. */
function limitsOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: NumberBounds) {
  const [least, above] = [minimum ?? -largest, exclusiveMinimum ?? Number.NEGATIVE_INFINITY]
  const [most, below] = [maximum ?? largest, exclusiveMaximum ?? Number.POSITIVE_INFINITY]
  const low = Math.max(least, above)
  const high = Math.min(most, below)
  if (low > largest || high < -largest) throw new RangeError('the bounds leave no number of up to 15 digits')
  return {
    ...{ low: Math.max(low, -largest), lowOpen: above >= least && above >= -largest },
    ...{ high: Math.min(high, largest), highOpen: below <= most && below <= largest },
  }
}

/** Numbers from `low` to `high`, both whole and not negative, without either where it is open. */
function decimals(low: number, high: number, lowOpen: boolean, highOpen: boolean): Piece[] {
  if (low > high) return []
  const parts: Piece[] = []
  const inner = lowOpen ? low + 1 : low
  // No more digits than JSON.parse keeps apart: 9.9999999999999999 would be read as 10.
  const digits = 15 - String(high).length
  const behind = digits > 0 ? optional(fraction(digits)) : empty
  if (inner < high) parts.push(sequence(wholeBetween(inner, high - 1), behind))
  if (lowOpen && low < high && digits > 0) parts.push(sequence(wholeBetween(low, low), someFraction(digits)))
  if (!highOpen && !(lowOpen && low === high)) parts.push(sequence(wholeBetween(high, high), optional(noFraction)))
  return parts
}

/** Whole numbers from `low` to `high`, neither negative, in decimal digits without leading zeros. */
function wholeBetween(low: number, high: number): Piece {
  const parts: Piece[] = []
  for (let length = String(low).length; length <= String(high).length; length++) {
    const from = String(Math.max(low, length === 1 ? 0 : 10 ** (length - 1)))
    const to = String(Math.min(high, 10 ** length - 1))
    parts.push(digitsBetween(from, to))
  }
  return either(...parts)
}

/** Digits between two numbers of the same length. */
function digitsBetween(from: string, to: string): Piece {
  if (from === '') return empty
  const [low, high] = [Number(from[0]), Number(to[0])]
  const [lowRest, highRest] = [from.slice(1), to.slice(1)]
  const one = (first: number, last: number, rest: Piece) => sequence(byte([zero + first, zero + last]), rest)
  if (low === high) return one(low, high, digitsBetween(lowRest, highRest))
  const { length } = lowRest
  const free = repeat(digit, length, length)
  const parts: Piece[] = []
  // The first and the last digit bind what follows; those between do not. Ends that bind nothing join them.
  const lowBinds = /[^0]/.test(lowRest)
  const highBinds = /[^9]/.test(highRest)
  if (lowBinds) parts.push(one(low, low, digitsBetween(lowRest, '9'.repeat(length))))
  if (highBinds) parts.push(one(high, high, digitsBetween('0'.repeat(length), highRest)))
  const [first, final] = [low + (lowBinds ? 1 : 0), high - (highBinds ? 1 : 0)]
  if (first <= final) parts.push(one(first, final, free))
  return either(...parts)
}
