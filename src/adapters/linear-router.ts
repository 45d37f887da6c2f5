import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'

/** A prompt's pooled state with the capability that it belongs to. */
export interface RoutedState {
  readonly state: Float32Array
  readonly capability: string
}

const rounds = 300

/**
 * A trained router: multinomial logistic regression on pooled states, standardised by the training states, fitted by full
 * gradient descent in f64. The same states give the same router.
 */
export class LinearRouter {
  readonly capabilities: readonly string[]
  /** (capabilities, C) */
  readonly weights: readonly Float64Array[]
  readonly bias: Float64Array

  /** @param weights on the states as they are, standardising folded in. */
  constructor(capabilities: readonly string[], weights: readonly Float64Array[], bias: Float64Array) {
    this.capabilities = capabilities
    this.weights = weights
    this.bias = bias
  }

  /**
   * Fits a router.
   * @param decay weight of ½‖w‖² beside the mean loss; 1e-3 unless told.
   * @throws RangeError when a capability has no state.
   */
  static fit(capabilities: readonly string[], examples: readonly RoutedState[], decay = 1e-3): LinearRouter {
    for (const name of capabilities)
      if (!examples.some(({ capability }) => capability === name))
        throw new RangeError(`Cannot fit a router: there is no example of ${name}`)
    const width = examples[0].state.length
    const n = examples.length
    const mean = new Float64Array(width)
    const deviation = new Float64Array(width)
    for (const { state } of examples) for (let c = 0; c < width; c++) mean[c] += state[c] / n
    for (const { state } of examples) for (let c = 0; c < width; c++) deviation[c] += (state[c] - mean[c]) ** 2 / n
    const scales = deviation.map((variance) => 1 / Math.sqrt(variance + 1e-12))
    const rows = examples.map(({ state }) => Float64Array.from(state, (value, c) => (value - mean[c]) * scales[c]))
    const weights = capabilities.map(() => new Float64Array(width))
    const bias = new Float64Array(capabilities.length)
    // The loss curves at most with half the mean squared length of a row.
    const rate = 1 / (0.5 * (width + 1) + decay)
    for (let round = 0; round < rounds; round++) {
      const slopes = capabilities.map(() => new Float64Array(width))
      const shifts = new Float64Array(capabilities.length)
      for (const [i, row] of rows.entries()) {
        const p = softmaxOf(weights.map((w, k) => dot(w, row) + bias[k]))
        for (const [k, name] of capabilities.entries()) {
          const error = (p[k] - (examples[i].capability === name ? 1 : 0)) / n
          shifts[k] += error
          for (let c = 0; c < width; c++) slopes[k][c] += error * row[c]
        }
      }
      for (const [k, w] of weights.entries()) {
        bias[k] -= rate * shifts[k]
        for (let c = 0; c < width; c++) w[c] -= rate * (slopes[k][c] + decay * w[c])
      }
    }
    for (const [k, w] of weights.entries())
      for (let c = 0; c < width; c++) {
        w[c] *= scales[c]
        bias[k] -= w[c] * mean[c]
      }
    return new LinearRouter(capabilities, weights, bias)
  }

  /** What a bundle packs, f32: `weights` (capabilities, C) and `bias` (capabilities, 1). */
  toTensors(): Map<string, CpuTensor> {
    const rows = this.capabilities.length
    const pack = (width: number, values: readonly number[]) =>
      cpuTensor('F32', [rows, width], Float32Array.from(values))
    return new Map([
      [
        'weights',
        pack(
          this.weights[0].length,
          this.weights.flatMap((row) => [...row]),
        ),
      ],
      ['bias', pack(1, [...this.bias])],
    ])
  }

  /** The likeliest capability of a pooled state, and its probability. */
  choose(state: Float32Array): { capability: string; score: number } {
    const scores = softmaxOf(this.weights.map((w, k) => dot(w, state) + this.bias[k]))
    const best = scores.indexOf(Math.max(...scores))
    return { capability: this.capabilities[best], score: scores[best] }
  }
}

function dot(w: Float64Array, x: ArrayLike<number>): number {
  let sum = 0
  for (let c = 0; c < w.length; c++) sum += w[c] * x[c]
  return sum
}

function softmaxOf(scores: readonly number[]): number[] {
  const most = Math.max(...scores)
  const powers = scores.map((score) => Math.exp(score - most))
  const total = powers.reduce((sum, power) => sum + power, 0)
  return powers.map((power) => power / total)
}
