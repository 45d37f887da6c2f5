import { ResourceError } from '../core/errors.ts'

/** A GPU buffer that the pool lends out. */
export interface Block {
  readonly buffer: GPUBuffer
  /** Identity for caches: never used again for another buffer. */
  readonly id: number
  /** Size of the buffer, at least what was asked for. */
  readonly capacity: number
}

/** What the pool holds, in bytes. */
export interface MemoryUse {
  /** Blocks lent out now. */
  readonly live: number
  readonly liveBytes: number
  /** Largest `liveBytes` so far. */
  readonly peakBytes: number
  /** Free blocks kept for reuse. */
  readonly pooledBytes: number
}

const usage = 0x80 | 0x4 | 0x8 // STORAGE | COPY_SRC | COPY_DST
const smallest = 256

/** Blocks come in four sizes an octave (1, 1¼, 1½, 1¾ times a power of two): at most a fifth is wasted. */
export function sizeClass(bytes: number): number {
  if (bytes <= smallest) return smallest
  const octave = 2 ** Math.floor(Math.log2(bytes))
  return Math.ceil(bytes / (octave / 4)) * (octave / 4)
}

/**
 * Lends out GPU buffers by size class and takes them back for reuse. Free blocks of a class are handed out last in,
 * first out, so a step that repeats gets the same buffers in the same order and its bind groups stay cached.
 */
export class Pool {
  readonly #device: GPUDevice
  readonly #budget: number
  readonly #bindingBytes: number
  readonly #free = new Map<number, Block[]>()
  readonly #onDestroy: (block: Block) => void
  #nextId = 1
  #live = 0
  #liveBytes = 0
  #peakBytes = 0
  #pooledBytes = 0
  #held: Map<number, Block[]> | undefined
  #spare: Map<number, Block[]> | undefined
  #imagined: { readonly blocks: Set<Block>; bytes: number; peak: number } | undefined

  /**
   * @param budget most bytes that may be lent out and kept free together.
   * @param onDestroy called before a block's buffer is destroyed, so that caches can forget it.
   * @param bindingBytes most bytes of a block, where that is less than the device allows.
   */
  constructor(
    device: GPUDevice,
    budget: number,
    onDestroy: (block: Block) => void,
    bindingBytes = Number.POSITIVE_INFINITY,
  ) {
    this.#device = device
    this.#bindingBytes = bindingBytes
    this.#budget = budget
    this.#onDestroy = onDestroy
  }

  get use(): MemoryUse {
    return {
      live: this.#live,
      liveBytes: this.#liveBytes,
      peakBytes: this.#peakBytes,
      pooledBytes: this.#pooledBytes,
    }
  }

  /** Most bytes of one block: what one binding may show. */
  get largest(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.#device.limits
    return Math.min(maxStorageBufferBindingSize, maxBufferSize, this.#bindingBytes)
  }

  /**
   * Lends a block of at least `bytes`.
   * @throws ResourceError when the block is larger than one binding may be, or the memory budget is spent.
   */
  acquire(bytes: number, label: string): Block {
    const most = this.largest
    if (bytes > most)
      throw new ResourceError(
        `Cannot allocate ${label}: it needs ${mebibytes(bytes)}, and one buffer may have ${mebibytes(most)} on this ` +
          'adapter. Use a smaller batch or a smaller matrix.',
      )
    const capacity = Math.min(sizeClass(bytes), most)
    if (this.#imagined) {
      // Nothing may touch the buffer of a block that is only counted.
      const block: Block = { buffer: undefined as never, id: -1, capacity }
      this.#imagined.blocks.add(block)
      this.#imagined.bytes += capacity
      this.#imagined.peak = Math.max(this.#imagined.peak, this.#imagined.bytes)
      return block
    }
    const held = this.#held?.get(capacity)?.pop() ?? (this.#spare && takeFitting(this.#spare, capacity))
    if (held) return held
    const block = this.#free.get(capacity)?.pop()
    if (block) this.#pooledBytes -= capacity
    else {
      if (this.#liveBytes + this.#pooledBytes + capacity > this.#budget) this.trim()
      if (this.#liveBytes + capacity > this.#budget)
        throw new ResourceError(
          `Cannot allocate ${label}: ${mebibytes(capacity)} more than the ${mebibytes(this.#liveBytes)} in use would ` +
            `pass the budget of ${mebibytes(this.#budget)}. Use a smaller batch, an NF4 base, or a larger budget.`,
        )
    }
    this.#live++
    this.#liveBytes += capacity
    this.#peakBytes = Math.max(this.#peakBytes, this.#liveBytes)
    return (
      block ?? { buffer: this.#device.createBuffer({ size: capacity, usage, label }), id: this.#nextId++, capacity }
    )
  }

  /** Starts to look for the most bytes in use; the function it gives back says how many they were since then. */
  watchPeak(): () => number {
    const before = this.#peakBytes
    this.#peakBytes = this.#liveBytes
    return () => {
      const most = this.#peakBytes
      this.#peakBytes = Math.max(before, most)
      return most
    }
  }

  /** Takes a block back. Whoever gave it must have submitted all commands that use it. */
  release(block: Block): void {
    if (this.#imagined?.blocks.delete(block)) {
      this.#imagined.bytes -= block.capacity
      return
    }
    if (this.#held) {
      put(this.#held, block)
      return
    }
    this.#live--
    this.#liveBytes -= block.capacity
    this.#pooledBytes += block.capacity
    put(this.#free, block)
  }

  /** Most bytes that `work` would have lent out at once; nothing is allocated. */
  imagine(work: () => void): number {
    const imagined = { blocks: new Set<Block>(), bytes: 0, peak: 0 }
    this.#imagined = imagined
    try {
      work()
    } finally {
      this.#imagined = undefined
    }
    return imagined.peak
  }

  /** Whether blocks are only counted now. */
  get imagining(): boolean {
    return this.#imagined !== undefined
  }

  /** Most bytes that may be lent out and kept free together. */
  get budget(): number {
    return this.#budget
  }

  /**
   * Blocks that are given back during `work` stay lent out, and serve `work` alone: a recording writes them again.
   * @param spare lent-out blocks that `work` may take before any others.
   * @returns those blocks, for the caller to release.
   */
  hold(work: () => void, spare?: Map<number, Block[]>): Block[] {
    const held = new Map<number, Block[]>()
    const blocks = () => [...held.values()].flat()
    this.#held = held
    this.#spare = spare
    try {
      work()
    } catch (error) {
      this.#held = undefined
      for (const block of blocks()) this.release(block)
      throw error
    } finally {
      this.#held = undefined
      this.#spare = undefined
    }
    return blocks()
  }

  /** Destroys all free blocks. */
  trim(): void {
    for (const blocks of this.#free.values())
      for (const block of blocks) {
        this.#onDestroy(block)
        block.buffer.destroy()
      }
    this.#free.clear()
    this.#pooledBytes = 0
  }
}

/** A block of `capacity`, or else the smallest of at most four times as much: larger ones are kept for larger tensors. */
function takeFitting(stacks: Map<number, Block[]>, capacity: number): Block | undefined {
  let best: number | undefined
  for (const [size, stack] of stacks)
    if (stack.length > 0 && size >= capacity && size <= 4 * capacity && (best === undefined || size < best)) best = size
  return best === undefined ? undefined : stacks.get(best)!.pop()
}

/** Adds a block to the stack of its capacity. */
export function put(stacks: Map<number, Block[]>, block: Block): void {
  const stack = stacks.get(block.capacity)
  if (stack) stack.push(block)
  else stacks.set(block.capacity, [block])
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 3 : 1)} MiB`
}
