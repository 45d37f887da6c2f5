import { bytesOf, type DType } from '../core/dtype.ts'
import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import type { Block } from './pool.ts'

/**
 * An n-dimensional array on the GPU, row-major. It owns nothing: its memory belongs to the {@link Scope} or
 * {@link Step} that made it and goes back when that is disposed of.
 */
export class Tensor<out D extends DType = DType> {
  readonly dtype: D
  readonly shape: Shape
  readonly label: string
  /** Number of elements. */
  readonly size: number
  /** Whether a gradient is wanted for this tensor: set on parameters, carried on by every op that uses them. */
  requiresGrad = false
  /** @internal the memory behind the tensor; views share it. */
  readonly block: Block
  /**
   * The rows of a matrix that is larger than one binding may be, in order and each a tensor; undefined for all others.
   * Only ops that say so take such a matrix: they loop over the windows.
   */
  readonly windows?: readonly Tensor<D>[]
  /** @internal where the first element lies in the block, in bytes. */
  readonly offset: number

  /** @internal use {@link Scope.empty}, {@link Scope.upload} or an op. */
  constructor(
    dtype: D,
    shape: Shape,
    block: Block,
    label: string,
    offset = 0,
    windows: readonly Tensor<D>[] | undefined = undefined,
  ) {
    this.dtype = dtype
    this.shape = shape
    this.size = sizeOf(shape)
    this.block = block
    this.label = label
    this.offset = offset
    if (windows) this.windows = windows
  }

  /** Size of the elements in bytes, without the padding of the buffer. */
  get bytes(): number {
    return this.size * bytesOf[this.dtype]
  }

  /** `f32 [5,37] label`, for messages. */
  toString(): string {
    return `${this.dtype} ${showShape(this.shape)} ${this.label}`
  }
}
