import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import { setAccumulate } from '../runtime/tape.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { add as wgsl } from './wgsl.gen.ts'

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
  const quads = y.size % 4 === 0
  const size = quads ? y.size / 4 : y.size
  const dispatch = { workgroups: grid(Math.ceil(size / 64)), flops: y.size }
  if (quads) step.run(wgsl.forwardQuads, { left: a, right: b, total: y }, { size }, dispatch)
  else step.run(wgsl.forward, { a, b, y }, { size }, dispatch)
  return step.node('add', y, [a, b], (dy) => [dy, dy])
}

setAccumulate(add)
