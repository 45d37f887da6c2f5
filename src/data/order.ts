import { Random } from '../core/random.ts'
import { firstFitDecreasing } from './packing.ts'

/** The sequences of a batch: for each of its rows, which rows of the data lie in it one behind the other. */
export type BatchPlan = readonly (readonly number[])[]

/** How rows become batches. */
export interface OrderOptions {
  readonly seed: number
  /** Rows a batch. */
  readonly rows: number
  /** Most tokens of a row. */
  readonly tokens: number
  /** Several short sequences in a row; otherwise one, and sequences of like lengths together. */
  readonly packing: boolean
  /** Rows in the order of the data, which is how they are scored. Off unless told. */
  readonly inOrder?: boolean
}

/** Rows that are packed or sorted by length together: enough to fill bins well, few enough that the order stays random. */
const packingWindow = 1024
const bucketBatches = 32

/**
 * Which rows make up which batch, for any step, from the lengths of the rows alone: the seed and the epoch decide, so a
 * run may go on anywhere without having seen what came before.
 */
export class DataOrder {
  readonly #tokens: ArrayLike<number>
  readonly #options: OrderOptions
  #epoch = -1
  #first = 0
  #batches: readonly BatchPlan[] = []

  /**
   * @param lengths ids of each row; a row of n ids has n − 1 tokens.
   * @throws RangeError when there are no rows.
   */
  constructor(lengths: ArrayLike<number>, options: OrderOptions) {
    if (lengths.length === 0) throw new RangeError('Cannot order rows: there are none')
    this.#tokens = Array.from(lengths, (length) => length - 1)
    this.#options = options
  }

  /** Batches of an epoch; with packing, epochs may differ. */
  batchesIn(epoch: number): number {
    return epoch === this.#epoch ? this.#batches.length : this.#plan(epoch).length
  }

  /** Batch `index`, counted from 0 over all epochs. */
  batch(index: number): BatchPlan {
    if (index < this.#first || this.#epoch < 0) this.#enter(0, 0)
    while (index >= this.#first + this.#batches.length) this.#enter(this.#epoch + 1, this.#first + this.#batches.length)
    return this.#batches[index - this.#first]
  }

  #enter(epoch: number, first: number): void {
    this.#epoch = epoch
    this.#first = first
    this.#batches = this.#plan(epoch)
  }

  #plan(epoch: number): BatchPlan[] {
    const { seed, rows, tokens, packing, inOrder = false } = this.#options
    const random = new Random(seed * 1_000_003 + epoch)
    const order = Array.from({ length: this.#tokens.length }, (_, row) => row)
    if (!inOrder) random.shuffle(order)
    if (packing) {
      const bins = windows(order, packingWindow).flatMap((part) => {
        const packed = firstFitDecreasing(part, (row) => this.#tokens[row], tokens)
        return inOrder ? packed : random.shuffle(packed)
      })
      return windows(bins, rows)
    }
    const batches = windows(order, rows * bucketBatches).flatMap((part) => {
      const sorted = [...part].sort((x, y) => this.#tokens[x] - this.#tokens[y] || x - y)
      return windows(sorted, rows).map((batch) => batch.map((row) => [row]))
    })
    return inOrder ? batches : random.shuffle(batches)
  }
}

function windows<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size))
}
