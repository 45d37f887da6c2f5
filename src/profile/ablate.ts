import type { FloatType } from '../core/dtype.ts'
import { headDivergence } from '../kernels/head-loss.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder } from '../models/decoder.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Batch, type BatchTensors, uploadBatch } from '../train/batch.ts'

/**
 * What leaving out layers costs on a batch: KL in nats a token that counts, from the whole model to the one without. The
 * residual stream before every layer is kept, so that only the layers behind the missing one run again; no logits are.
 */
export class Ablation implements Disposable {
  readonly #decoder: Decoder
  readonly #batch: Batch
  readonly #scope: Scope
  #kept: Scope
  readonly #tensors: BatchTensors
  readonly #full: Tensor<FloatType>
  #inputs: Tensor<FloatType>[] = []
  #skipped: ReadonlySet<number> = new Set()

  constructor(decoder: Decoder, batch: Batch) {
    this.#decoder = decoder
    this.#batch = batch
    this.#scope = decoder.gpu.scope('ablation')
    this.#kept = decoder.gpu.scope('ablation inputs')
    this.#tensors = uploadBatch(this.#scope, batch)
    using step = decoder.gpu.step({ label: 'ablation' })
    this.#full = step.keep(decoder.normed(step, this.#run(step)), this.#scope)
  }

  /** Runs the whole model and keeps what flows into each layer. */
  #run(step: Step): Tensor<FloatType> {
    const inputs: Tensor<FloatType>[] = []
    const hidden = this.#decoder.hidden(step, this.#tensors.ids, {
      skip: this.#skipped,
      observe(name, x) {
        if (name === 'embedding' || name.endsWith('.output')) inputs.push(x)
      },
    })
    // Where a layer is skipped the next one reads what it read.
    const all: Tensor<FloatType>[] = []
    for (let layer = 0, at = 0; layer < this.#decoder.config.layers; layer++) {
      all.push(inputs[at])
      if (!this.#skipped.has(layer)) at++
    }
    const kept = new Map(inputs.slice(0, -1).map((x) => [x, step.keep(x, this.#kept)]))
    this.#inputs = all.map((x) => kept.get(x) ?? x)
    return hidden
  }

  /** Leaves out these layers from now on, beside the one that is asked about. */
  skip(layers: ReadonlySet<number>): void {
    this.#kept[Symbol.dispose]()
    this.#kept = this.#decoder.gpu.scope('ablation inputs')
    this.#skipped = new Set(layers)
    using step = this.#decoder.gpu.step({ label: 'ablation' })
    this.#run(step)
  }

  /** KL in nats a token without `layer`. */
  async cost(layer: number): Promise<number> {
    const { headWeight } = this.#decoder
    using step = this.#decoder.gpu.step({ label: 'ablation' })
    const hidden = this.#decoder.hidden(step, this.#tensors.ids, {
      skip: this.#skipped,
      from: { begin: layer + 1, x: this.#inputs[layer] },
    })
    const student = this.#decoder.normed(step, hidden)
    const kl = headDivergence(step, student, headWeight, { hidden: this.#full, weight: headWeight })
    return step.readNumber(weightedMean(step, kl, this.#tensors.weights, this.#batch.total))
  }

  [Symbol.dispose](): void {
    this.#kept[Symbol.dispose]()
    this.#scope[Symbol.dispose]()
  }
}

/**
 * Which layers to confirm by ablation: all where there are few, else those with the highest and the lowest scores.
 * @param most layers, half of them from each end.
 */
export function layersToConfirm(scores: readonly number[], most: number): number[] {
  const order = [...scores.keys()].sort((a, b) => scores[a] - scores[b] || a - b)
  if (order.length <= most) return order.sort((a, b) => a - b)
  const half = Math.ceil(most / 2)
  return [...order.slice(0, half), ...order.slice(order.length - (most - half))].sort((a, b) => a - b)
}

/** The fewest layers that together cost half of what all measured ones do, dearest first. */
export function keyLayers(measured: readonly { readonly layer: number; readonly kl: number }[]): number[] {
  const order = [...measured].sort((a, b) => b.kl - a.kl || a.layer - b.layer)
  const half = order.reduce((sum, { kl }) => sum + kl, 0) / 2
  let sum = 0
  const key: number[] = []
  for (const { layer, kl } of order) {
    if (sum >= half) break
    sum += kl
    key.push(layer)
  }
  return key
}

/** Spearman's rank correlation, equal values sharing their ranks; undefined of fewer than three pairs or of constants. */
export function spearman(a: readonly number[], b: readonly number[]): number | undefined {
  if (a.length < 3 || a.length !== b.length) return undefined
  const ranks = (values: readonly number[]) =>
    values.map((value) => {
      const below = values.filter((other) => other < value).length
      return below + (values.filter((other) => other === value).length - 1) / 2
    })
  const [x, y] = [ranks(a), ranks(b)]
  const middle = (a.length - 1) / 2
  let [both, xx, yy] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    both += (x[i] - middle) * (y[i] - middle)
    xx += (x[i] - middle) ** 2
    yy += (y[i] - middle) ** 2
  }
  return xx > 0 && yy > 0 ? both / Math.sqrt(xx * yy) : undefined
}
