import { bytesOf, type DType, encode, type HostArray, viewAs } from '../core/dtype.ts'
import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import type { Gpu } from './gpu.ts'
import type { Block } from './pool.ts'
import { Tensor } from './tensor.ts'

const guardBytes = 256
const guardWord = 0x7fc0dead // a NaN, as f32 and as two f16 halves' upper one

/**
 * Owns the memory of tensors. What is born in a scope goes back to the pool when the scope is disposed of; weights
 * live in the scope of their model, intermediate results in a {@link Step}.
 *
 * @example
 * using weights = gpu.scope('weights')
 * const w = weights.upload('f32', [2, 2], [1, 2, 3, 4])
 */
export class Scope implements Disposable {
  readonly gpu: Gpu
  readonly label: string
  readonly #blocks = new Set<Block>()
  readonly #ends = new Map<Block, number>()
  #disposed = false

  /** @internal use {@link Gpu.scope} or {@link Gpu.step}. */
  constructor(gpu: Gpu, label: string) {
    this.gpu = gpu
    this.label = label
  }

  /** A tensor whose contents are undefined until a kernel writes them. */
  empty<D extends DType>(dtype: D, shape: Shape, label = 'tensor'): Tensor<D> {
    if (this.#disposed) throw new ReferenceError(`Cannot allocate ${label} in ${this.label}: it is disposed of`)
    if (shape.some((dimension) => !Number.isInteger(dimension) || dimension < 1))
      throw new RangeError(`Cannot make ${label} ${showShape(shape)}: every dimension must be a positive integer`)
    const bytes = sizeOf(shape) * bytesOf[dtype]
    const { guards, pool, queue } = this.gpu
    if (bytes > pool.largest && shape.length === 2 && 64 * shape[1] * bytesOf[dtype] <= pool.largest)
      return this.#windowed(dtype, shape, label)
    const block = pool.acquire(bytes + (guards ? guardBytes : 0), `${this.label}.${label}`)
    if (guards && !pool.imagining) {
      queue.write(block.buffer, 0, new Uint32Array(block.capacity / 4).fill(guardWord))
      this.#ends.set(block, bytes)
    }
    this.#blocks.add(block)
    return new Tensor(dtype, shape, block, label)
  }

  /** A matrix too large for one binding: windows of rows, each a multiple of 64 rows but the last. */
  #windowed<D extends DType>(dtype: D, shape: Shape, label: string): Tensor<D> {
    const [rows, columns] = shape
    const each = 64 * Math.max(1, Math.floor(this.gpu.pool.largest / (64 * columns * bytesOf[dtype])))
    const windows = Array.from({ length: Math.ceil(rows / each) }, (_, i) =>
      this.empty(dtype, [Math.min(each, rows - i * each), columns], `${label}[${i * each}…]`),
    )
    return new Tensor(dtype, shape, windows[0].block, label, 0, windows)
  }

  /**
   * A tensor with `values`, rounded to `dtype`. A host array of the dtype (for f16 its bits) is copied as it is.
   * @throws RangeError when the number of values is not the shape's.
   */
  upload<D extends DType>(
    dtype: D,
    shape: Shape,
    values: ArrayLike<number> | HostArray<D>,
    label = 'tensor',
  ): Tensor<D> {
    const tensor = this.empty(dtype, shape, label)
    this.gpu.write(tensor, values)
    return tensor
  }

  /** A tensor with every element `value`. */
  filled<D extends DType>(dtype: D, shape: Shape, value: number, label = 'tensor'): Tensor<D> {
    const tensor = this.empty(dtype, shape, label)
    if (this.gpu.pool.imagining) return tensor
    const [one] = encode(dtype, [value])
    this.gpu.write(tensor, viewAs(dtype, new ArrayBuffer(tensor.bytes)).fill(one) as HostArray<D>)
    return tensor
  }

  /** Whether the memory of `tensor` is this scope's. */
  owns(tensor: Tensor): boolean {
    return this.#blocks.has(tensor.block)
  }

  /**
   * Hands the memory of `tensor` over to `owner`: the only way out of a step.
   * @returns a tensor that the owner's life bounds.
   */
  keep<D extends DType>(tensor: Tensor<D>, owner: Scope): Tensor<D> {
    if (!this.#blocks.delete(tensor.block))
      throw new ReferenceError(`Cannot keep ${tensor}: ${this.label} does not own its memory`)
    owner.#blocks.add(tensor.block)
    return new Tensor(tensor.dtype, tensor.shape, tensor.block, tensor.label, tensor.offset)
  }

  /**
   * Looks behind the end of every tensor of a guarded {@link Gpu}.
   * @throws RangeError when a kernel wrote there.
   */
  async checkGuards(): Promise<void> {
    for (const [block, end] of this.#ends) {
      const words = new Uint32Array(await this.gpu.queue.read(block.buffer, block.capacity))
      for (let i = Math.ceil(end / 4); i < words.length; i++)
        if (words[i] !== guardWord)
          throw new RangeError(`A kernel wrote ${4 * i - end} bytes behind the end of ${block.buffer.label}`)
    }
  }

  /** Gives back all memory. Work already recorded on it still runs. */
  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.gpu.queue.submit()
    // In reverse, so that the pool's stacks are refilled in the order in which they were emptied.
    for (const block of [...this.#blocks].reverse()) this.gpu.pool.release(block)
    this.#blocks.clear()
  }
}
