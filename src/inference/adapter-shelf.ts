import type { Adapter } from '../adapters/adapter.ts'

interface Place {
  readonly adapter: Adapter
  users: number
  /** Taken from the shelf: it goes when its last user is done. */
  retired: boolean
}

/** Adapters by name, which come and go while others are in use. */
export class AdapterShelf implements Disposable {
  readonly #places = new Map<string, Place>()
  readonly #beforeDisposal: (adapter: Adapter) => void

  /** @param beforeDisposal called with each adapter just before its memory is given back. */
  constructor(beforeDisposal: (adapter: Adapter) => void) {
    this.#beforeDisposal = beforeDisposal
  }

  /** Names in the order in which they came. */
  get names(): string[] {
    return [...this.#places.keys()]
  }

  /** Puts an adapter up, in the place of one of the same name. */
  set(adapter: Adapter): void {
    const old = this.#places.get(adapter.name)
    this.#places.set(adapter.name, { adapter, users: 0, retired: false })
    if (old) this.#retire(old)
  }

  /** Takes an adapter down. @returns whether it was there. */
  remove(name: string): boolean {
    const place = this.#places.get(name)
    if (!place) return false
    this.#places.delete(name)
    this.#retire(place)
    return true
  }

  /** An adapter to be used until it is given back, whatever becomes of its name; undefined when there is none. */
  borrow(name: string): { readonly adapter: Adapter; giveBack: () => void } | undefined {
    const place = this.#places.get(name)
    if (!place) return undefined
    place.users++
    return {
      adapter: place.adapter,
      giveBack: () => {
        place.users--
        if (place.retired && place.users === 0) this.#dispose(place)
      },
    }
  }

  #retire(place: Place): void {
    place.retired = true
    if (place.users === 0) this.#dispose(place)
  }

  #dispose({ adapter }: Place): void {
    this.#beforeDisposal(adapter)
    adapter[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    for (const { adapter } of this.#places.values()) adapter[Symbol.dispose]()
    this.#places.clear()
  }
}
