import type { Place, Rule } from './piece.ts'

/** What comes after a rule that was called: places to go on at, the innermost first. */
interface Stack {
  readonly id: number
  readonly top: Place
  readonly below: Stack | undefined
}

/** A place that waits for a byte, and what comes after its rule. */
interface Thread {
  readonly id: number
  readonly place: Place & { kind: 'byte' }
  readonly stack: Stack | undefined
}

interface State {
  readonly threads: readonly Thread[]
  /** Whether the text may end here. */
  readonly accepts: boolean
}

/** A state that nothing can lead out of, and that no text leads to. */
export const dead = -1
const unknown = -2

/**
 * Reads text byte by byte along a grammar: a pushdown automaton whose states are made when a text first reaches them and
 * whose transitions are remembered, so that reading a byte again is one look at a table. A byte after which the text
 * could not be completed is refused, so a text that is not dead can always be finished.
 */
export class Automaton {
  /** The state before the first byte. */
  readonly start: number
  /** Bytes of the same class lead to the same states. */
  readonly classOf: Uint8Array
  /** Number of classes. */
  readonly classes: number
  /** {@link classes} a state: the state that each class leads to, {@link dead}, or below that what was never asked for. */
  table: Int32Array
  readonly #spellable: Uint8Array
  readonly #ids = new Map<Place, number>()
  readonly #finishing = new Set<Place>()
  readonly #states: State[] = []
  readonly #stateOf = new Map<string, number>()
  readonly #stacks = new Map<string, Stack>()
  readonly #threads = new Map<string, Thread>()

  /**
   * @param root what the text is to be.
   * @param spellable 256 flags: the bytes that can be written at all; all of them unless told.
   * @throws RangeError when no text follows the grammar with these bytes.
   */
  constructor(root: Rule, spellable: Uint8Array = new Uint8Array(256).fill(1)) {
    this.#spellable = spellable
    this.#number(root.start)
    this.classOf = this.#classes()
    this.classes = this.classOf[255] + 1
    this.table = new Int32Array(64 * this.classes)
    if (!this.#finishing.has(root.start))
      throw new RangeError('no finite text follows it that the vocabulary can spell')
    this.start = this.#intern([[root.start, undefined]])
  }

  /** Number of states so far. */
  get size(): number {
    return this.#states.length
  }

  /** Where a byte leads: a state, or {@link dead}. */
  step(state: number, value: number): number {
    const cell = state * this.classes + this.classOf[value]
    const known = this.table[cell]
    if (known !== unknown) return known
    const to: [Place, Stack | undefined][] = []
    for (const { place, stack } of this.#states[state].threads)
      if (place.ranges.some(([low, high]) => value >= low && value <= high)) to.push([place.next, stack])
    const next = to.length === 0 || !this.#spellable[value] ? dead : this.#intern(to)
    this.table[cell] = next
    return next
  }

  /** Whether the text may end here. */
  accepts(state: number): boolean {
    return this.#states[state].accepts
  }

  /** Whether the text may end here and cannot go on. */
  isFull(state: number): boolean {
    const { accepts, threads } = this.#states[state]
    return accepts && threads.length === 0
  }

  /** Numbers all places that can be reached, and finds those from which their rule can be finished. */
  #number(root: Place): void {
    const places: Place[] = []
    const waiting = [root]
    while (waiting.length > 0) {
      const place = waiting.pop()!
      if (this.#ids.has(place)) continue
      this.#ids.set(place, this.#ids.size)
      places.push(place)
      if (place.kind === 'either') waiting.push(...place.options)
      else if (place.kind !== 'end') waiting.push(place.next)
      if (place.kind === 'call') waiting.push(place.rule.start)
    }
    const finishes = (place: Place): boolean => {
      if (place.kind === 'end') return true
      if (place.kind === 'either') return place.options.some((option) => this.#finishing.has(option))
      if (!this.#finishing.has(place.next)) return false
      if (place.kind === 'call') return this.#finishing.has(place.rule.start)
      return place.ranges.some(([low, high]) => this.#spellable.subarray(low, high + 1).includes(1))
    }
    // What follows a place was mostly found after it: from the end, few rounds are needed.
    let open = places.reverse()
    for (let before = -1; before !== open.length; ) {
      before = open.length
      open = open.filter((place) => {
        const found = finishes(place)
        if (found) this.#finishing.add(place)
        return !found
      })
    }
  }

  /** Tells bytes apart that some place of the grammar does. */
  #classes(): Uint8Array {
    const begins = new Uint8Array(257)
    for (const place of this.#ids.keys())
      if (place.kind === 'byte') for (const [low, high] of place.ranges) begins[low] = begins[high + 1] = 1
    const classOf = new Uint8Array(256)
    for (let value = 1; value < 256; value++) {
      const differs = begins[value] || this.#spellable[value] !== this.#spellable[value - 1]
      classOf[value] = classOf[value - 1] + (differs ? 1 : 0)
    }
    return classOf
  }

  /** The state of everything that can be reached from `roots` without a byte. */
  #intern(roots: [Place, Stack | undefined][]): number {
    const threads = new Map<number, Thread>()
    const seen = new Set<string>()
    const waiting = roots
    let accepts = false
    while (waiting.length > 0) {
      const [place, stack] = waiting.pop()!
      if (!this.#finishing.has(place)) continue
      if (place.kind === 'end') {
        if (!stack) accepts = true
        else waiting.push([stack.top, stack.below])
        continue
      }
      const key = `${this.#ids.get(place)},${stack?.id}`
      if (seen.has(key)) continue
      seen.add(key)
      if (place.kind === 'either') for (const option of place.options) waiting.push([option, stack])
      // A call at the end of a rule needs no way back to it.
      else if (place.kind === 'call')
        waiting.push([place.rule.start, place.next.kind === 'end' ? stack : this.#push(place.next, stack)])
      else {
        const thread = this.#threads.get(key) ?? { id: this.#threads.size, place, stack }
        this.#threads.set(key, thread)
        threads.set(thread.id, thread)
      }
    }
    return this.#add([...threads.values()], accepts)
  }

  #add(threads: readonly Thread[], accepts: boolean): number {
    const key = `${accepts} ${threads
      .map(({ id }) => id)
      .sort((a, b) => a - b)
      .join()}`
    const known = this.#stateOf.get(key)
    if (known !== undefined) return known
    const state = this.#states.length
    this.#states.push({ threads, accepts })
    this.#stateOf.set(key, state)
    if ((state + 1) * this.classes > this.table.length) {
      const larger = new Int32Array(2 * this.table.length)
      larger.set(this.table)
      this.table = larger
    }
    this.table.fill(unknown, state * this.classes, (state + 1) * this.classes)
    return state
  }

  #push(top: Place, below: Stack | undefined): Stack {
    const key = `${this.#ids.get(top)},${below?.id}`
    let stack = this.#stacks.get(key)
    if (!stack) {
      stack = { id: this.#stacks.size, top, below }
      this.#stacks.set(key, stack)
    }
    return stack
  }
}
