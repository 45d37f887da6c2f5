/** Seed used wherever a caller names none. */
export const defaultSeed = 42

/** A seeded stream of random numbers: xoshiro128**, seeded through splitmix32. Equal seeds give equal streams. */
export class Random {
  readonly #state = new Uint32Array(4)

  /** @param seed an integer, or the state that {@link save} returned. */
  constructor(seed: number | readonly number[] = defaultSeed) {
    if (typeof seed !== 'number') {
      if (seed.length !== 4) throw new RangeError(`Cannot restore Random: its state has 4 words, got ${seed.length}`)
      this.#state.set(seed)
      return
    }
    let s = seed >>> 0
    for (let i = 0; i < 4; i++) {
      s = (s + 0x9e3779b9) >>> 0
      let z = s
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      this.#state[i] = z ^ (z >>> 15)
    }
  }

  /** The state, for a checkpoint. */
  save(): number[] {
    return [...this.#state]
  }

  /** A uniform integer in [0, 2^32). */
  uint32(): number {
    const s = this.#state
    const product = Math.imul(s[1], 5)
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0
    const t = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = (s[3] << 11) | (s[3] >>> 21)
    return result
  }

  /** A uniform number in [0, 1). */
  uniform(): number {
    return this.uint32() / 2 ** 32
  }

  /** A uniform integer in [0, end). */
  integer(end: number): number {
    return Math.floor(this.uniform() * end)
  }

  /** A number from the standard normal distribution (Box-Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()))
    return radius * Math.cos(2 * Math.PI * this.uniform())
  }

  /** `length` numbers from N(0, deviation²) as f32. */
  normals(length: number, deviation = 1): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length }, () => this.normal() * deviation)
  }

  /** One element of `items`. */
  pick<T>(items: ArrayLike<T>): T {
    return items[this.integer(items.length)]
  }

  /** `items` in random order, in place (Fisher-Yates). */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1)
      ;[items[i], items[j]] = [items[j], items[i]]
    }
    return items
  }
}

/** FNV-1a of a string's UTF-16 units, 32 bits: a stable way to split items by their content. */
export function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
