import { type AnyPcaState, channelVariances, isSketch } from './pca-state.ts'

/** A channel whose size dwarfs that of the others. */
export interface MassiveChannel {
  readonly channel: number
  /** Its deviation over the median deviation. */
  readonly deviation: number
  /** The size of its mean over the median of means, or over the median deviation where that is larger. */
  readonly mean: number
}

/** How many times the median makes a channel massive, unless told. */
const massiveFactor = 20

/**
 * Channels whose deviation or mean is more than `factor` times the median deviation, largest first. They are no fault:
 * models use a few channels as constants; but estimates of dimension must not hang on them.
 * @see Sun et al., Massive Activations in Large Language Models, 2024.
 */
export function massiveChannels(state: AnyPcaState, { factor = massiveFactor } = {}): MassiveChannel[] {
  const deviations = channelVariances(state).map(Math.sqrt)
  const usual = median(deviations)
  if (!(usual > 0)) return []
  // A mean that all channels share is a shift, not an outlier.
  const means = state.mean.map(Math.abs)
  const usualMean = Math.max(usual, median(means))
  return Array.from(deviations, (deviation, channel) => ({
    channel,
    deviation: deviation / usual,
    mean: means[channel] / usualMean,
  }))
    .filter(({ deviation, mean }) => deviation > factor || mean > factor)
    .sort((a, b) => Math.max(b.deviation, b.mean) - Math.max(a.deviation, a.mean))
}

/** The state with `massive` channels scaled down to the size of the median channel. */
export function clipChannels<S extends AnyPcaState>(state: S, massive: readonly MassiveChannel[]): S {
  const scale = new Float64Array(state.mean.length).fill(1)
  for (const { channel, deviation, mean } of massive) scale[channel] = 1 / Math.max(deviation, mean)
  return scaleChannels(state, scale)
}

/** The state of the same rows with channel i multiplied by scale[i]. */
export function scaleChannels<S extends AnyPcaState>(state: S, scale: Float64Array): S {
  const d = state.mean.length
  const mean = state.mean.map((value, i) => value * scale[i])
  const scaled: AnyPcaState = isSketch(state)
    ? {
        ...state,
        mean,
        rows: state.rows.map((value, at) => value * scale[at % d]),
        diagonal: state.diagonal.map((value, i) => value * scale[i] ** 2),
        shed: state.shed * scale.reduce((most, value) => Math.max(most, value), 0) ** 2,
      }
    : {
        ...state,
        mean,
        scatter: state.scatter.map((value, at) => value * scale[Math.floor(at / d)] * scale[at % d]),
      }
  return scaled as S
}

/**
 * Rows whose norm dwarfs the median: the first token of a text, which attends only to itself, and delimiters like it.
 * Give them weight 0 in the update of a PCA.
 * @param norms of the rows of a batch, (B, T).
 * @param tokens T
 * @param options.factor how many times the median makes an outlier; 8 unless told.
 * @returns flat indices of such rows, and the positions where more than half of the rows are.
 */
export function outlierTokens(
  norms: ArrayLike<number>,
  tokens: number,
  { factor = 8 } = {},
): { readonly rows: number[]; readonly positions: number[] } {
  if (!Number.isInteger(tokens) || tokens < 1 || norms.length % tokens !== 0)
    throw new RangeError(`Cannot look for outliers among ${norms.length} rows of ${tokens} tokens: they must divide`)
  const bound = factor * median(Float64Array.from(norms))
  const rows: number[] = []
  const counts = new Float64Array(tokens)
  for (let i = 0; i < norms.length; i++)
    if (norms[i] > bound) {
      rows.push(i)
      counts[i % tokens]++
    }
  const half = norms.length / tokens / 2
  return { rows, positions: [...counts.keys()].filter((position) => counts[position] > half) }
}

function median(values: Float64Array): number {
  return Float64Array.from(values).sort()[Math.floor(values.length / 2)] ?? 0
}
