import type { FloatType } from '../core/dtype.ts'
import { ResourceError } from '../core/errors.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** Keys and values of one layer, (pages, page size, G, D). */
export interface LayerCache {
  readonly k: Tensor<FloatType>
  readonly v: Tensor<FloatType>
}

/**
 * The keys and values of all layers in pages that sequences borrow and give back. The pages are made once; a sequence
 * never moves what it has stored.
 */
export class KvPages implements Disposable {
  readonly pageSize: number
  readonly pages: number
  readonly layers: readonly LayerCache[]
  readonly #scope: Scope
  readonly #free: number[]

  /**
   * @param dtype of the cache.
   * @param pages how many pages there are in all.
   * @param pageSize tokens of a page.
   */
  constructor(gpu: Gpu, config: ModelConfig, dtype: FloatType, pages: number, pageSize: number) {
    this.pageSize = pageSize
    this.pages = pages
    this.#scope = gpu.scope('cache')
    const shape = [pages, pageSize, config.kvHeads, config.headSize]
    this.layers = Array.from({ length: config.layers }, (_, layer) => ({
      k: this.#scope.empty(dtype, shape, `${layer}.keys`),
      v: this.#scope.empty(dtype, shape, `${layer}.values`),
    }))
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i)
  }

  /** Pages that nobody has. */
  get free(): number {
    return this.#free.length
  }

  /**
   * Borrows pages for `tokens` tokens.
   * @throws ResourceError when there are not enough.
   */
  borrow(tokens: number): number[] {
    const count = Math.ceil(tokens / this.pageSize)
    if (count > this.#free.length)
      throw new ResourceError(
        `Cannot keep ${tokens} tokens: ${count} pages are needed, ${this.#free.length} of ${this.pages} are free. ` +
          'End other sequences, or give the engine more tokens.',
      )
    return this.#free.splice(this.#free.length - count).reverse()
  }

  /** Gives pages back. */
  giveBack(pages: readonly number[]): void {
    this.#free.push(...[...pages].reverse())
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}
