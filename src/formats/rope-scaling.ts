/** How the rotations of a model were stretched to a longer context. */
export type RopeScaling =
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'llama3'
      readonly factor: number
      readonly lowFrequencyFactor: number
      readonly highFrequencyFactor: number
      /** Context length before stretching. */
      readonly originalContext: number
    }
  | {
      readonly type: 'yarn'
      readonly factor: number
      readonly originalContext: number
      readonly betaFast: number
      readonly betaSlow: number
      /** Factor of cosine and sine; 0.1 · ln(factor) + 1 where the file names none. */
      readonly attentionFactor: number
    }
  /** A divisor for each frequency, in a tensor of the file, as llama.cpp keeps Llama 3's. */
  | { readonly type: 'tensor'; readonly name: string }

/** What the rope kernel needs for one kind of layer. */
export interface RopeFrequencies {
  /** Radians a position, f32 (dimensions / 2). */
  readonly inverse: Float32Array<ArrayBuffer>
  /** Factor of cosine and sine; 1 except for yarn. */
  readonly attentionFactor: number
}

/**
 * The rotation frequencies theta^(−2i/D), stretched.
 * @param dimensions D: how many numbers of a head are rotated; even.
 * @param divisors the values of the tensor that a scaling of type 'tensor' names.
 * @throws RangeError when that tensor is missing or of another length.
 * @see transformers, modeling_rope_utils.py; Peng et al., YaRN, 2023, sections 3.2 to 3.4.
 */
export function ropeFrequencies(
  theta: number,
  dimensions: number,
  scaling?: RopeScaling,
  divisors?: ArrayLike<number>,
): RopeFrequencies {
  const half = dimensions / 2
  const plain = Float64Array.from({ length: half }, (_, i) => theta ** (-i / half))
  const result = (change: (frequency: number, i: number) => number, attentionFactor = 1) => ({
    inverse: Float32Array.from(plain, change),
    attentionFactor,
  })
  if (!scaling) return result((frequency) => frequency)
  if (scaling.type === 'linear') return result((frequency) => frequency / scaling.factor)
  if (scaling.type === 'tensor') {
    if (divisors?.length !== half)
      throw new RangeError(
        `Cannot scale rope by ${scaling.name}: it must have ${half} values, got ${divisors?.length ?? 'none'}`,
      )
    return result((frequency, i) => frequency / divisors[i])
  }
  if (scaling.type === 'llama3') {
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling
    return result((frequency) => {
      const turns = (originalContext * frequency) / (2 * Math.PI)
      if (turns < low) return frequency / factor
      if (turns > high) return frequency
      const smooth = (turns - low) / (high - low)
      return ((1 - smooth) * frequency) / factor + smooth * frequency
    })
  }
  const { factor, originalContext, betaFast, betaSlow, attentionFactor } = scaling
  const dimensionOf = (turns: number) =>
    (dimensions * Math.log(originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(theta))
  const first = Math.max(0, Math.floor(dimensionOf(betaFast)))
  const last = Math.min(dimensions - 1, Math.ceil(dimensionOf(betaSlow)))
  // A range of no width would divide by zero; the reference widens it by the same amount.
  const width = last === first ? 0.001 : last - first
  return result((frequency, i) => {
    const stretched = Math.min(1, Math.max(0, (i - first) / width))
    return (frequency / factor) * stretched + frequency * (1 - stretched)
  }, attentionFactor)
}
