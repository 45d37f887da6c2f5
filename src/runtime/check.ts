import { type Shape, sameShape, showShape } from '../core/shape.ts'
import type { Tensor } from './tensor.ts'

/**
 * The check at an op's door: `Cannot rmsNorm x [5,37]: weight must be [37], got [36]`.
 * @param x the tensor that the message is about; `tensor` is the one that must fit it.
 * @throws RangeError when `tensor` does not have `shape`.
 */
export function expectShape(op: string, x: Tensor, name: string, tensor: Tensor, shape: Shape): void {
  if (!sameShape(tensor.shape, shape))
    throw new RangeError(
      `Cannot ${op} x ${showShape(x.shape)}: ${name} must be ${showShape(shape)}, got ${showShape(tensor.shape)}`,
    )
}

/**
 * The rank that an op needs.
 * @throws RangeError when `x` has another one.
 */
export function expectRank(op: string, x: Tensor, letters: string, rank: number): void {
  if (x.shape.length !== rank) throw new RangeError(`Cannot ${op} x ${showShape(x.shape)}: it must be (${letters})`)
}
