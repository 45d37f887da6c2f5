import type { FloatType } from '../core/dtype.ts'
import { wideColumns } from '../kernels/scatter.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { FrequentDirections, sketchState } from './frequent-directions.ts'
import { type AnyPcaState, mergePcaStates } from './pca-state.ts'
import { covarianceBytes, covarianceState, mostCovarianceColumns, ShiftedCovariance } from './shifted-covariance.ts'
import type { PcaSnapshot } from './snapshot.ts'

/** How a stream is collected. */
export type StreamingMethod = 'covariance' | 'frequent-directions'

/** Choices of {@link StreamingPca}. */
export interface StreamingPcaOptions {
  /** Bytes of GPU memory that may be kept between updates; 256 MiB unless told. */
  readonly memory?: number
  /** ℓ, rows of the sketch where a sketch is chosen: even, 2 to 128; 64 unless told. */
  readonly sketchSize?: number
  /** Overrules the choice by dimension and memory. */
  readonly method?: StreamingMethod
  /** Rows seen earlier, as `state()` gave them: the stream goes on from there. */
  readonly from?: AnyPcaState
}

/**
 * Collects the PCA of a stream of activations where they are: on the GPU. Only small matrices come to the host. The exact
 * covariance is kept while d ≤ 4,096 and memory allows it, Frequent Directions above.
 *
 * @example
 * using pca = new StreamingPca(gpu, 128)
 * pca.update(step, activations, weights, count)
 * const { eigenvalues } = decompose(await pca.state())
 */
export class StreamingPca implements Disposable {
  readonly dimension: number
  readonly method: StreamingMethod
  readonly #collector: ShiftedCovariance | FrequentDirections
  readonly #from: AnyPcaState | undefined

  /**
   * @param dimension d.
   * @throws RangeError when `options.from` has another dimension or was collected by another method.
   */
  constructor(gpu: Gpu, dimension: number, options: StreamingPcaOptions = {}) {
    const { memory = 2 ** 28, sketchSize = 64, from } = options
    this.method = options.method ?? chooseMethod(dimension, { memory, sketchSize }).method
    this.dimension = dimension
    this.#from = from
    if (from && (from.mean.length !== dimension || 'scatter' in from !== (this.method === 'covariance')))
      throw new RangeError(
        `Cannot go on from a state of dimension ${from.mean.length} with ${this.method} of dimension ${dimension}`,
      )
    this.#collector =
      this.method === 'covariance'
        ? new ShiftedCovariance(gpu, dimension)
        : new FrequentDirections(gpu, dimension, sketchSize)
  }

  /** Rows seen so far, those of `from` included. */
  get count(): number {
    return this.#collector.count + (this.#from?.count ?? 0)
  }

  /**
   * Takes in the rows of `x` whose weight is 1. It only records; nothing is waited for.
   * @param x f32 or f16 (…, d).
   * @param weights f32 (…): 1 for a row that counts, 0 for one that does not and is never read.
   * @param count how many weights are 1.
   * @throws RangeError when the shapes do not fit.
   */
  update(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, count: number): void {
    this.#collector.update(step, x, weights, count)
  }

  /** What was collected so far, in f64 on the host. */
  async state(): Promise<AnyPcaState> {
    const state = snapshotState(this.dimension, await this.snapshot())
    return this.#from ? mergePcaStates(this.#from, state) : state
  }

  /** Numbers that a snapshot has beside its tensors. */
  get counters(): PcaSnapshot['counters'] {
    return this.#collector.counters
  }

  /** Elements of each tensor of a snapshot. */
  get sizes(): Readonly<Record<string, number>> {
    return this.#collector.sizes
  }

  /** What lies on the GPU, without what `from` brought along. */
  snapshot(): Promise<PcaSnapshot> {
    return this.#collector.snapshot()
  }

  /**
   * Goes on from a snapshot, to the last bit.
   * @throws RangeError when it is of another dimension or method.
   */
  restore(snapshot: PcaSnapshot): void {
    this.#collector.restore(snapshot)
  }

  [Symbol.dispose](): void {
    this.#collector[Symbol.dispose]()
  }
}

/** The state that a snapshot of a stream of dimension `d` stands for, in f64. */
export function snapshotState(d: number, snapshot: PcaSnapshot): AnyPcaState {
  return snapshot.tensors.has('scatter.hi') ? covarianceState(d, snapshot) : sketchState(d, snapshot)
}

/** How a stream of `dimension` is collected where `memory` bytes may be kept, and the bytes that it takes. */
export function chooseMethod(
  dimension: number,
  { memory = 2 ** 28, sketchSize = 64 }: Pick<StreamingPcaOptions, 'memory' | 'sketchSize'> = {},
): { readonly method: StreamingMethod; readonly bytes: number } {
  const bytes = covarianceBytes(dimension)
  return dimension <= mostCovarianceColumns && bytes <= memory
    ? { method: 'covariance', bytes }
    : { method: 'frequent-directions', bytes: 8 * sketchSize * wideColumns(dimension) }
}
