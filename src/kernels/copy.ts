import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, mapDispatch } from './parts.ts'
import { copyQuads as quads, copy as single } from './wgsl.gen.ts'

/**
 * y = x, in place: `y` is a tensor or a window of one (see {@link Step.rows}).
 * @param x f32 or f16.
 * @param y the dtype and size of `x`.
 * @throws RangeError when the sizes differ.
 */
export function copy<D extends FloatType>(step: Step, x: Tensor<D>, y: Tensor<D>): void {
  if (x.size !== y.size) throw new RangeError(`Cannot copy x ${showShape(x.shape)} to y ${showShape(y.shape)}`)
  const { wgsl, width } = inParts(single, quads, x.size)
  const size = x.size / width
  step.run(wgsl.forward, { x, y }, { size }, mapDispatch(step.gpu, size, 0))
}

/**
 * The same values in another storage type, rounded once.
 * @param x f32 or f16, any shape.
 * @param dtype of the result.
 * @returns the shape of `x`; `x` itself where nothing changes.
 */
export function cast<D extends FloatType>(step: Step, x: Tensor<FloatType>, dtype: D): Tensor<D> {
  if (x.dtype === dtype) return x as Tensor<D>
  const y = step.empty(dtype, x.shape, 'cast')
  const { wgsl, width } = inParts(single, quads, x.size)
  const size = x.size / width
  const dispatch = mapDispatch(step.gpu, size, 0)
  if (dtype === 'f32') step.run(wgsl.widen, { x, widened: y as Tensor<'f32'> }, { size }, dispatch)
  else step.run(wgsl.narrow, { full: x as Tensor<'f32'>, y }, { size }, dispatch)
  return step.node('cast', y, [x], (dy) => [cast(step, dy, x.dtype)])
}
