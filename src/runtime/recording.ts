import type { CommandQueue, Item } from './queue.ts'
import type { StepCost } from './step.ts'

/**
 * GPU work that was recorded once and can be run again and again: the same kernels on the same buffers, with no op, no
 * shape check and no bind group made anew. What changes between runs lies in tensors that the caller rewrites
 * (`gpu.write`) before {@link replay}; numbers that were passed to ops as numbers stay what they were.
 *
 * @example
 * const x = inputs.empty('f32', [64])
 * using recording = gpu.record((step) => { result = step.keep(scale(step, x, 2), inputs) })
 * gpu.write(x, values)
 * recording.replay()
 * console.log(await gpu.read(result))
 */
export class Recording implements Disposable {
  /** What one replay does. */
  readonly cost: StepCost
  readonly #queue: CommandQueue
  readonly #items: readonly Item[]
  readonly #release: () => void
  #disposed = false

  /** @internal use {@link Gpu.record}. */
  constructor(queue: CommandQueue, items: readonly Item[], cost: StepCost, release: () => void) {
    this.#queue = queue
    this.#items = items
    this.cost = cost
    this.#release = release
  }

  /**
   * Runs the work once more, after everything recorded so far.
   * @throws ReferenceError when the recording is disposed of.
   */
  replay(): void {
    if (this.#disposed) throw new ReferenceError('Cannot replay a recording that is disposed of')
    this.#queue.replay(this.#items)
  }

  /** Gives back all memory of the recording. */
  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#release()
  }
}
