import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSums } from './matmul.ts'
import { bias as wgsl } from './wgsl.gen.ts'

/**
 * x + bias, one row for all: for layers whose own kernel cannot add it.
 * @param x f32 or f16 (…, C).
 * @param bias the dtype of `x`, (C).
 * @returns the dtype and shape of `x`.
 * @throws RangeError when `bias` is not (C).
 */
export function addBias<D extends FloatType>(step: Step, x: Tensor<D>, bias: Tensor<D>): Tensor<D> {
  const { columns } = rowsAndColumns(x.shape)
  expectShape('addBias', x, 'bias', bias, [columns])
  const y = step.empty(x.dtype, x.shape, 'biased')
  const dispatch = { workgroups: grid(Math.ceil(x.size / 64)), flops: x.size }
  step.run(wgsl.forward, { x, bias, y }, { size: x.size, columns }, dispatch)
  return step.node('addBias', y, [x, bias], (dy) => [dy, bias.requiresGrad ? columnSums(step, dy) : null])
}
