import { type Automaton, dead } from './automaton.ts'

/**
 * The bytes of all tokens as a tree, laid out so that it is walked from the first node to the last: a node comes before
 * what begins with it, and `after` says where to go on when nothing of that is wanted.
 */
export class Vocabulary {
  /** 256 flags: the bytes that are a token by themselves. Whatever is made of these can be spelled. */
  readonly spellable = new Uint8Array(256)
  readonly #bytes: readonly (Uint8Array | undefined)[]
  readonly #value: Uint8Array
  readonly #depth: Uint16Array
  readonly #after: Int32Array
  /** The first token that ends at a node, or −1; those with the same bytes are chained. */
  readonly #token: Int32Array
  readonly #same: Int32Array
  #deepest = 0

  /** @param bytes of each token by its id; none for those that are no text. */
  constructor(bytes: readonly (Uint8Array | undefined)[]) {
    this.#bytes = bytes
    const ids = [...bytes.keys()].filter((id) => (bytes[id]?.length ?? 0) > 0)
    const spelled = bytes.map((each) => (each ? latin1(each) : ''))
    ids.sort((a, b) => (spelled[a] < spelled[b] ? -1 : spelled[a] > spelled[b] ? 1 : a - b))
    let nodes = 0
    for (const [i, id] of ids.entries()) nodes += spelled[id].length - shared(spelled[id], spelled[ids[i - 1]])
    this.#value = new Uint8Array(nodes)
    this.#depth = new Uint16Array(nodes)
    this.#after = new Int32Array(nodes)
    this.#token = new Int32Array(nodes).fill(-1)
    this.#same = new Int32Array(bytes.length).fill(-1)
    const open: number[] = [] // the nodes from the root to the last one
    let next = 0
    for (const [i, id] of ids.entries()) {
      const own = bytes[id]!
      if (own.length === 1) this.spellable[own[0]] = 1
      const common = shared(spelled[id], spelled[ids[i - 1]])
      while (open.length > common) this.#after[open.pop()!] = next
      for (let depth = common; depth < own.length; depth++) {
        this.#value[next] = own[depth]
        this.#depth[next] = depth
        open.push(next++)
      }
      const last = open.at(-1)!
      this.#same[id] = this.#token[last]
      this.#token[last] = id
      this.#deepest = Math.max(this.#deepest, own.length)
    }
    for (const node of open) this.#after[node] = next
  }

  /** Bytes of a token; undefined for one that is no text. */
  bytesOf(id: number): Uint8Array | undefined {
    return this.#bytes[id]
  }

  /**
   * Sets the bit of every token that can come in `state`.
   * @param bits u32, token i in bit i % 32 of word ⌊i / 32⌋; tokens past its end are left out.
   * @returns how many there are.
   */
  mark(automaton: Automaton, state: number, bits: Uint32Array): number {
    const states = new Int32Array(this.#deepest + 1)
    states[0] = state
    const most = bits.length * 32
    const { classOf, classes } = automaton
    let count = 0
    for (let node = 0; node < this.#value.length; ) {
      const depth = this.#depth[node]
      const from = states[depth]
      const known = automaton.table[from * classes + classOf[this.#value[node]]]
      const to = known >= dead ? known : automaton.step(from, this.#value[node])
      if (to === dead) {
        node = this.#after[node]
        continue
      }
      states[depth + 1] = to
      for (let id = this.#token[node]; id >= 0; id = this.#same[id])
        if (id < most) {
          bits[id >> 5] |= 1 << (id & 31)
          count++
        }
      node++
    }
    return count
  }
}

function latin1(bytes: Uint8Array): string {
  let text = ''
  for (const value of bytes) text += String.fromCharCode(value)
  return text
}

/** Characters that two texts begin with together. */
function shared(a: string, b = ''): number {
  let count = 0
  while (count < a.length && count < b.length && a.charCodeAt(count) === b.charCodeAt(count)) count++
  return count
}
