import { Automaton, dead } from './automaton.ts'
import type { Rule } from './piece.ts'
import type { Vocabulary } from './vocabulary.ts'

/** Masks that are kept for states that come again. */
const mostMasks = 512
/** States that an automaton may have before new texts get a new one. */
const mostStates = 50_000

/** An automaton and the masks of its states. */
interface Reader {
  readonly automaton: Automaton
  readonly masks: Map<number, Uint32Array<ArrayBuffer>>
}

/** What texts must be, for a vocabulary. It remembers states and masks, so that many texts share them. */
export class Constraint {
  readonly #grammar: Rule
  readonly #vocabulary: Vocabulary
  readonly #columns: number
  readonly #ends: readonly number[]
  #reader: Reader

  /**
   * @param columns number of logits.
   * @param ends ids of tokens that end a text; they are allowed where it is complete.
   * @throws RangeError when the vocabulary can spell no such text.
   */
  constructor(grammar: Rule, vocabulary: Vocabulary, columns: number, ends: readonly number[]) {
    this.#grammar = grammar
    this.#vocabulary = vocabulary
    this.#columns = columns
    this.#ends = ends
    this.#reader = this.#newReader()
  }

  /** A new text, empty. */
  begin(): ConstrainedText {
    if (this.#reader.automaton.size > mostStates) this.#reader = this.#newReader()
    const reader = this.#reader
    const { automaton } = reader
    let state = automaton.start
    let ended = false
    return {
      mask: () => this.#mask(reader, state),
      take: (id) => {
        const bytes = this.#vocabulary.bytesOf(id)
        if (this.#ends.includes(id) && automaton.accepts(state)) ended = true
        else {
          let next = bytes && bytes.length > 0 ? state : dead
          for (const value of bytes ?? []) if (next !== dead) next = automaton.step(next, value)
          if (next === dead) throw new RangeError(`Cannot take token ${id} here: the text would not follow its grammar`)
          state = next
        }
      },
      isComplete: () => automaton.accepts(state),
      isDone: () => ended || automaton.isFull(state),
    }
  }

  #newReader(): Reader {
    return { automaton: new Automaton(this.#grammar, this.#vocabulary.spellable), masks: new Map() }
  }

  #mask({ automaton, masks }: Reader, state: number): Uint32Array<ArrayBuffer> {
    const known = masks.get(state)
    if (known) {
      // The one used last goes last.
      masks.delete(state)
      masks.set(state, known)
      return known
    }
    const bits = new Uint32Array(Math.ceil(this.#columns / 32))
    const count = this.#vocabulary.mark(automaton, state, bits)
    const ends = automaton.accepts(state) ? this.#ends : []
    for (const id of ends) bits[id >> 5] |= 1 << (id & 31)
    if (count + ends.length === 0) throw new RangeError('Cannot go on: no token of the vocabulary fits')
    masks.set(state, bits)
    if (masks.size > mostMasks) masks.delete(masks.keys().next().value!)
    return bits
  }
}

/** A text that is being made under a {@link Constraint}. */
export interface ConstrainedText {
  /** u32 (⌈V / 32⌉): bit i % 32 of word ⌊i / 32⌋ says whether token i may come next. Not to be changed. */
  mask(): Uint32Array<ArrayBuffer>
  /** Takes a token in. @throws RangeError when it may not come here. */
  take(id: number): void
  /** Whether the text so far is whole. */
  isComplete(): boolean
  /** Whether it was ended, or is whole and nothing may follow. */
  isDone(): boolean
}
