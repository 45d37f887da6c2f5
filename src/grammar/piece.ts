/** A range of bytes, both ends included. */
export type ByteRange = readonly [low: number, high: number]

/** A place in a grammar: what may come here, and where that leads. */
export type Place =
  | { readonly kind: 'byte'; readonly ranges: readonly ByteRange[]; readonly next: Place }
  | { readonly kind: 'either'; readonly options: Place[] }
  | { readonly kind: 'call'; readonly rule: Rule; readonly next: Place }
  | { readonly kind: 'end' }

/** The end of every rule. */
export const end: Place = { kind: 'end' }

/** A part of a grammar that has a name and may call itself. */
export interface Rule {
  readonly name: string
  /** Where it begins; set when the rule is complete. */
  start: Place
}

/** A part of a grammar, not yet joined to what follows it. */
export interface Piece {
  /** About how many places it will take. */
  readonly size: number
  /** Makes its places. @returns where it begins. */
  build(next: Place): Place
}

/** Most places of one repetition or rule: more would take too long to make. */
export const mostPlaces = 100_000

/** Nothing. */
export const empty: Piece = { size: 0, build: (next) => next }

/** One byte of any of the ranges. */
export function byte(...ranges: ByteRange[]): Piece {
  return { size: 1, build: (next) => ({ kind: 'byte', ranges, next }) }
}

/** The UTF-8 bytes of `text`. */
export function literal(text: string): Piece {
  return sequence(...[...new TextEncoder().encode(text)].map((value) => byte([value, value])))
}

/** One piece after the other. */
export function sequence(...pieces: Piece[]): Piece {
  return {
    size: pieces.reduce((sum, { size }) => sum + size, 0),
    build: (next) => pieces.reduceRight((after, piece) => piece.build(after), next),
  }
}

/** Any one of the pieces; none of them can come where there are none. */
export function either(...pieces: Piece[]): Piece {
  if (pieces.length === 1) return pieces[0]
  return {
    size: pieces.reduce((sum, { size }) => sum + size, 1),
    build: (next) => ({ kind: 'either', options: pieces.map((piece) => piece.build(next)) }),
  }
}

/** The piece or nothing. */
export function optional(piece: Piece): Piece {
  return either(piece, empty)
}

/**
 * The piece `least` to `most` times.
 * @param most infinite for any number.
 * @throws RangeError when that takes more than {@link mostPlaces}.
 */
export function repeat(piece: Piece, least: number, most = Number.POSITIVE_INFINITY): Piece {
  const bounded = Number.isFinite(most)
  const size = (piece.size + 1) * (bounded ? most : least + 1)
  if (size > mostPlaces) throw new RangeError(`repeating ${bounded ? most : least} times makes too large a grammar`)
  return {
    size,
    build(next) {
      let place = next
      if (bounded) for (let i = least; i < most; i++) place = { kind: 'either', options: [piece.build(place), next] }
      else {
        const loop: Place = { kind: 'either', options: [next] }
        loop.options.push(piece.build(loop))
        place = loop
      }
      for (let i = 0; i < least; i++) place = piece.build(place)
      return place
    },
  }
}

/** What a rule says. */
export function call(rule: Rule): Piece {
  return { size: 1, build: (next) => ({ kind: 'call', rule, next }) }
}

/** A rule of one piece. */
export function ruleOf(name: string, piece: Piece): Rule {
  return { name, start: piece.build(end) }
}
