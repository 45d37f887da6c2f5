import type { FloatType } from '../core/dtype.ts'
import { accumulate, centre } from '../kernels/centre.ts'
import { scale } from '../kernels/elementwise.ts'
import { matmul } from '../kernels/matmul.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { PcaState } from './pca-state.ts'

/**
 * Collects the exact covariance of a stream of activations where they are: on the GPU. Each update costs one product
 * xᵀ·x; only the (d, d) result ever comes to the host. All rows are moved by the first batch's mean, which keeps f32
 * sums exact when the mean is far from zero.
 *
 * @example
 * using pca = new StreamingPca(gpu, 128)
 * pca.update(step, activations, weights, count)
 * const { eigenvalues } = decompose(await pca.state())
 */
export class StreamingPca implements Disposable {
  readonly dimension: number
  readonly #gpu: Gpu
  readonly #scope: Scope
  readonly #shift: Tensor<'f32'>
  readonly #sum: Tensor<'f32'>
  readonly #scatter: Tensor<'f32'>
  #count = 0

  /** @param dimension d, at most 4,096. */
  constructor(gpu: Gpu, dimension: number) {
    if (!Number.isInteger(dimension) || dimension < 1 || dimension > 4096)
      throw new RangeError(`Cannot collect a covariance of dimension ${dimension}: it must be 1 to 4,096`)
    this.dimension = dimension
    this.#gpu = gpu
    this.#scope = gpu.scope('pca')
    this.#shift = this.#scope.filled('f32', [dimension], 0, 'shift')
    this.#sum = this.#scope.filled('f32', [1, dimension], 0, 'sum')
    this.#scatter = this.#scope.filled('f32', [dimension, dimension], 0, 'scatter')
  }

  /** Rows seen so far. */
  get count(): number {
    return this.#count
  }

  /**
   * Takes in the rows of `x` whose weight is 1.
   * @param x f32 or f16 (…, d).
   * @param weights f32 (…): 1 for a row that counts, 0 for one that does not.
   * @param count how many weights are 1.
   */
  update(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, count: number): void {
    step.withoutGradients(() => {
      const column = step.reshape(weights, [weights.size, 1])
      if (this.#count === 0) {
        const plain = centre(step, x, weights, this.#shift)
        const mean = matmul(step, column, plain, { transposeA: true })
        accumulate(step, this.#shift, step.reshape(scale(step, mean, 1 / count), [this.dimension]))
      }
      const rows = centre(step, x, weights, this.#shift)
      accumulate(step, this.#sum, matmul(step, column, rows, { transposeA: true }))
      accumulate(step, this.#scatter, matmul(step, rows, rows, { transposeA: true }))
    })
    this.#count += count
  }

  /** What was collected so far, in f64 on the host. */
  async state(): Promise<PcaState> {
    const [shift, sum, scatter] = await Promise.all(
      [this.#shift, this.#sum, this.#scatter].map((t) => this.#gpu.read(t)),
    )
    const d = this.dimension
    const n = this.#count
    const offset = Float64Array.from(sum, (value) => value / n)
    return {
      count: n,
      mean: offset.map((value, i) => value + shift[i]),
      scatter: Float64Array.from(scatter, (value, i) => value - n * offset[Math.floor(i / d)] * offset[i % d]),
    }
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}
