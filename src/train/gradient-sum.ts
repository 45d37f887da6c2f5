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
  readonly #sums: ReadonlyMap<Tensor<FloatType>, Tensor<'f32'>>
  readonly #reached = new Set<Tensor>()

  /** @param parameters whose gradients are wanted. */
  constructor(gpu: Gpu, parameters: readonly Tensor<FloatType>[]) {
    this.#scope = gpu.scope('gradient sum')
    this.#sums = new Map(parameters.map((p) => [p, this.#scope.empty('f32', p.shape, `${p.label} gradient`)]))
  }

  /**
   * Adds the gradients of all parameters that `gradients` reached; every part of a step must reach the same.
   * @param first whether the sums begin with these.
   */
  add(step: Step, gradients: Gradients, first: boolean): void {
    for (const [parameter, sum] of this.#sums) {
      if (!gradients.has(parameter)) continue
      this.#reached.add(parameter)
      if (first) copy(step, cast(step, gradients.get(parameter), 'f32'), sum)
      else accumulate(step, sum, gradients.get(parameter))
    }
  }

  /** The sums, in the dtypes of their parameters; what had to be rounded lives as long as `step`. */
  of(step: Step): GradientSource {
    return {
      has: (tensor) => this.#reached.has(tensor),
      get: <D extends FloatType>(tensor: Tensor<D>) =>
        cast(step, this.#sums.get(tensor as Tensor<FloatType>)!, tensor.dtype),
    }
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}
