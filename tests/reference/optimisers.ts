// Steps of the optimisers.

/** What AdamW keeps of a parameter; a step moves it on. */
export interface AdamwState {
  readonly weight: Float64Array
  readonly m: Float64Array
  readonly v: Float64Array
}

/** Settings of {@link adamw64}. */
export interface AdamwSettings {
  readonly lr: number
  /** Number of the step, from 1. */
  readonly t: number
  readonly decay: number
  /** Largest norm of the gradient. */
  readonly clip: number
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
}

/** One AdamW step in place. @returns the norm of the gradient before it was clipped. */
export function adamw64({ weight, m, v }: AdamwState, gradient: ArrayLike<number>, settings: AdamwSettings): number {
  const { lr, t, decay, clip, beta1 = 0.9, beta2 = 0.95, eps = 1e-8 } = settings
  let squares = 0
  for (let i = 0; i < gradient.length; i++) squares += gradient[i] ** 2
  const norm = Math.sqrt(squares)
  const factor = Math.min(1, clip / norm)
  for (let i = 0; i < weight.length; i++) {
    const g = gradient[i] * factor
    m[i] = beta1 * m[i] + (1 - beta1) * g
    v[i] = beta2 * v[i] + (1 - beta2) * g ** 2
    const change = m[i] / (1 - beta1 ** t) / (Math.sqrt(v[i] / (1 - beta2 ** t)) + eps)
    weight[i] = weight[i] * (1 - lr * decay) - lr * change
  }
  return norm
}

/**
 * The moments that 8-bit codes stand for.
 * @param words four codes each, the lowest byte first.
 * @param largest the magnitude of each block of 256 that code value 1 stands for.
 */
export function moments64(
  words: ArrayLike<number>,
  map: ArrayLike<number>,
  largest: (block: number) => number,
): Float64Array {
  return Float64Array.from(
    { length: words.length * 4 },
    (_, i) => map[(words[i >> 2] >>> (8 * (i & 3))) & 255] * largest(i >> 8),
  )
}
