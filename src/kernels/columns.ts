import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, sameShape, showShape } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columns as wgsl } from './wgsl.gen.ts'

/**
 * Tensors side by side along the last dimension.
 * @param parts f32 or f16 (…, n_i), all of one dtype and with the same leading dimensions; at least one.
 * @returns the dtype of the parts, (…, Σ n_i).
 * @throws RangeError when the leading dimensions differ.
 */
export function joinColumns<D extends FloatType>(step: Step, parts: readonly Tensor<D>[]): Tensor<D> {
  const lead = parts[0].shape.slice(0, -1)
  const widths = parts.map(({ shape }) => shape.at(-1)!)
  const columns = widths.reduce((sum, width) => sum + width, 0)
  const y = step.empty(parts[0].dtype, [...lead, columns], 'joined')
  const firsts = widths.map((_, i) => widths.slice(0, i).reduce((sum, width) => sum + width, 0))
  for (const [i, narrow] of parts.entries()) {
    if (!sameShape(narrow.shape.slice(0, -1), lead))
      throw new RangeError(`Cannot join ${showShape(parts[0].shape)} and ${showShape(narrow.shape)} along columns`)
    const params = { rows: y.size / columns, columns, width: widths[i], first: firsts[i] }
    step.run(wgsl.place, { narrow, wide: y }, params, {
      workgroups: grid(Math.ceil(narrow.size / 64)),
      flops: 0,
      bytes: 2 * narrow.bytes,
    })
  }
  return step.node('joinColumns', y, parts, (dy) =>
    parts.map((part, i) => (part.requiresGrad ? takeColumns(step, dy, firsts[i], widths[i]) : null)),
  )
}

/**
 * Columns `first` to `first + width` of every row.
 * @param x f32 or f16 (…, C).
 * @returns the dtype of `x`, (…, width). It has no gradient.
 * @throws RangeError when there are no such columns.
 */
export function takeColumns<D extends FloatType>(step: Step, x: Tensor<D>, first: number, width: number): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  if (!(first >= 0 && width >= 1 && first + width <= columns))
    throw new RangeError(`Cannot take columns ${first} to ${first + width} of x ${showShape(x.shape)}`)
  const part = step.empty(x.dtype, [...x.shape.slice(0, -1), width], 'columns')
  const dispatch = { workgroups: grid(Math.ceil(part.size / 64)), flops: 0, bytes: 2 * part.bytes }
  step.run(wgsl.take, { source: x, part }, { rows, columns, width, first }, dispatch)
  return step.node('takeColumns', part, [x], 'none')
}
