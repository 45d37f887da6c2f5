import type { FloatType } from '../core/dtype.ts'
import { accumulate } from '../kernels/centre.ts'
import { cast, copy } from '../kernels/copy.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Gradients, Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { GradientSource } from './optimiser.ts'

/** Gradients of several backward passes, added in f32 in the order in which they come. */
export class GradientSum implements Disposable {
  readonly #scope: Scope
  readonly #parameters: readonly Tensor<FloatType>[]
  readonly #sums = new Map<Tensor, Tensor<'f32'>>()

  /** @param parameters whose gradients are wanted. */
  constructor(gpu: Gpu, parameters: readonly Tensor<FloatType>[]) {
    this.#parameters = parameters
    this.#scope = gpu.scope('gradient sum')
  }

  /**
   * Adds the gradients of all parameters that `gradients` reached; every part of a step must reach the same.
   * @param first whether the sums begin with these.
   */
  add(step: Step, gradients: Gradients, first: boolean): void {
    for (const parameter of this.#parameters) {
      if (!gradients.has(parameter)) continue
      const gradient = gradients.get(parameter)
      const sum = this.#sums.get(parameter) ?? this.#scope.empty('f32', parameter.shape, `${parameter.label} gradient`)
      this.#sums.set(parameter, sum)
      if (first) copy(step, cast(step, gradient, 'f32'), sum)
      else accumulate(step, sum, gradient)
    }
  }

  /** The sums, in the dtypes of their parameters; what had to be rounded lives as long as `step`. */
  of(step: Step): GradientSource {
    return {
      has: (tensor) => this.#sums.has(tensor),
      get: <D extends FloatType>(tensor: Tensor<D>) => cast(step, this.#sums.get(tensor)!, tensor.dtype),
    }
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}
