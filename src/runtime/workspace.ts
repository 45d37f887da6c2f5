import type { Block, Pool } from './pool.ts'

/**
 * Memory that several recordings share: only one of them runs at a time, and none keeps its intermediate results. The
 * first should be the largest, so that the others find room in its blocks. Dispose of the recordings before it.
 *
 * @example
 * using workspace = gpu.workspace()
 * using long = gpu.record((step) => train(step, longRows), workspace)
 * using short = gpu.record((step) => train(step, shortRows), workspace)
 */
export class Workspace implements Disposable {
  readonly #pool: Pool
  /** @internal blocks that no recording is using while it is recorded, by capacity. */
  readonly spare = new Map<number, Block[]>()

  /** @internal use {@link Gpu.workspace}. */
  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** Bytes that the recordings share. */
  get bytes(): number {
    return [...this.spare.values()].flat().reduce((sum, { capacity }) => sum + capacity, 0)
  }

  /** Gives the memory back. */
  [Symbol.dispose](): void {
    for (const block of [...this.spare.values()].flat()) this.#pool.release(block)
    this.spare.clear()
  }
}
