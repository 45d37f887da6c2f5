import type { DType, FloatType } from '../core/dtype.ts'
import type { Step } from './step.ts'
import type { Tensor } from './tensor.ts'

/**
 * `work()` without its intermediate tensors: they are given back at once, and made again when its gradient is wanted.
 * Trades one more forward pass for the memory of everything between `inputs` and the result.
 * @param inputs every tensor that `work` reads and that may want a gradient, parameters too.
 * @param work records on the step that it is given, and gives back a tensor that it made.
 * @returns the result of `work`, owned by `step`.
 * @see Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
 */
export function checkpoint<D extends DType>(
  step: Step,
  label: string,
  inputs: readonly Tensor[],
  work: (inner: Step) => Tensor<D>,
): Tensor<D> {
  using first = step.inner(label)
  const output = first.withoutGradients(() => first.keep(work(first), step))
  return step.node(label, output, inputs, (dy) => {
    using again = step.inner(label)
    const gradients = again.backward(work(again), { seed: dy })
    return inputs.map((input) => {
      if (!input.requiresGrad || !gradients.has(input)) return null
      const gradient = gradients.get(input as Tensor<FloatType>)
      // A gradient may be dy itself, or the same tensor for two inputs.
      return again.owns(gradient) ? again.keep(gradient, step) : gradient
    })
  })
}
