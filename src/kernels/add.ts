import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import { setAccumulate } from '../runtime/tape.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, mapDispatch } from './parts.ts'
import { addQuads as quads, add as single } from './wgsl.gen.ts'

/**
 * a + b, element by element.
 * @param a f32 or f16, any shape.
 * @param b the dtype and shape of `a`.
 * @returns the dtype and shape of `a`.
 * @throws RangeError when the shapes differ.
 */
export function add<D extends FloatType>(step: Step, a: Tensor<D>, b: Tensor<D>): Tensor<D> {
  expectShape('add', a, 'b', b, a.shape)
  const y = step.empty(a.dtype, a.shape, 'add')
  const { wgsl, width } = inParts(single, quads, y.size)
  const size = y.size / width
  step.run(wgsl.forward, { a, b, y }, { size }, mapDispatch(step.gpu, size, y.size))
  return step.node('add', y, [a, b], (dy) => [dy, dy])
}

setAccumulate(add)
