import { clipChannels, type MassiveChannel, massiveChannels, scaleChannels } from './massive.ts'
import { parallelAnalysis, patience } from './parallel-analysis.ts'
import { type AnyPcaState, channelVariances, decompose, decomposer, isSketch, type Pca } from './pca-state.ts'

/** Estimates of how many components carry signal. Each is a number of components, not always whole. */
export interface RankEstimates {
  /** The default: parallel analysis. */
  readonly rank: number
  /** Components that noise of the same channels would not show. */
  readonly parallel: number
  /** Components above the Gavish-Donoho threshold, which one huge channel hardly moves. */
  readonly gavishDonoho: number
  /** Components above the edge of the Marchenko-Pastur law of pure noise. */
  readonly marchenkoPastur: number
  /** Components that explain 95 % of the variance; one huge channel decides it. */
  readonly explained95: number
  /** (Σλ)² / Σλ². */
  readonly participationRatio: number
  /** exp of the entropy of λ/Σλ. */
  readonly effectiveRank: number
}

/** Rank estimates of a state, with what was kept from deciding. */
export interface RankReport extends RankEstimates {
  /** Channels that were scaled down to the median before anything was estimated. */
  readonly massive: readonly MassiveChannel[]
}

/**
 * Rank estimates of what a stream leaves behind. Parallel analysis, the default, sees correlations: no channel's size
 * decides anything, and channels may be unequally noisy. The others see covariances in which massive channels are scaled
 * down to the median channel.
 * @param options.centred as {@link decompose} takes it.
 * @param options.pca the decomposition of `state`, if it is at hand: it is used again when no channel is massive.
 * @throws RangeError with fewer than two rows.
 */
export function estimateStateRank(
  state: AnyPcaState,
  { centred = true, pca }: { centred?: boolean; pca?: Pca } = {},
): RankReport {
  const massive = massiveChannels(state)
  const clipped = massive.length > 0 ? clipChannels(state, massive) : state
  const found = massive.length > 0 || !pca ? decompose(clipped, { centred, components: 0 }) : pca
  const estimates = estimateRank(wholeSpectrum(clipped, found, centred), state.count)

  const sizes = moments(state, centred).map(Math.sqrt)
  const correlations = scaleChannels(
    state,
    sizes.map((size) => (size > 0 ? 1 / size : 0)),
  )
  const variances = moments(correlations, centred)
  let parallel = 0
  const standardised = decomposer(correlations, centred)
  // Components are found as far as the search for the rank goes.
  for (let wanted = 64; ; wanted = Math.ceil(1.5 * wanted)) {
    const standard = standardised(wanted)
    const channels = { variances, components: standard.components }
    parallel = parallelAnalysis(wholeSpectrum(correlations, standard, centred), state.count, channels)
    const found = standard.components.length / state.mean.length
    if (found < wanted || parallel + patience + 1 < found) break
  }
  return { ...estimates, rank: parallel, parallel, massive }
}

/** Variances of the channels, or their mean squares. */
function moments(state: AnyPcaState, centred: boolean): Float64Array {
  const share = state.count / Math.max(1, state.count - 1)
  const variances = channelVariances(state)
  return centred ? variances : variances.map((value, i) => value + share * state.mean[i] ** 2)
}

/** All d eigenvalues. A sketch does not show the tail of its spectrum, but what it sums to is known exactly. */
function wholeSpectrum(state: AnyPcaState, { eigenvalues }: Pca, centred: boolean): Float64Array {
  if (!isSketch(state)) return eigenvalues
  const d = state.mean.length
  const sum = (values: Float64Array) => values.reduce((total, value) => total + value, 0)
  const left = Math.max(0, sum(moments(state, centred)) - sum(eigenvalues))
  const each = Math.min(eigenvalues.at(-1) ?? 0, left / Math.max(1, d - eigenvalues.length))
  return Float64Array.from({ length: d }, (_, i) => eigenvalues[i] ?? each)
}

/**
 * Rank estimates from a spectrum alone: parallel analysis takes all channels for equally noisy.
 * @param eigenvalues variances, largest first.
 * @param count rows that the spectrum was made from.
 * @see Gavish and Donoho, The Optimal Hard Threshold for Singular Values is 4/√3, 2014, for unknown noise; Marchenko
 *   and Pastur, 1967; Roy and Vetterli, The Effective Rank, 2007.
 */
export function estimateRank(eigenvalues: Float64Array, count: number): RankEstimates {
  const total = eigenvalues.reduce((sum, value) => sum + value, 0)
  if (!(total > 0))
    return {
      ...{ rank: 0, parallel: 0, gavishDonoho: 0, marchenkoPastur: 0 },
      ...{ explained95: 0, participationRatio: 0, effectiveRank: 0 },
    }
  const squares = eigenvalues.reduce((sum, value) => sum + value * value, 0)
  const entropy = eigenvalues.reduce(
    (sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum),
    0,
  )
  let explained = 0
  let explained95 = 0
  while (explained95 < eigenvalues.length && explained < 0.95 * total) explained += eigenvalues[explained95++]

  const d = eigenvalues.length
  const n = Math.max(1, count - 1)
  // With fewer rows than columns only n eigenvalues can differ from zero.
  const possible = Math.min(d, n)
  const beta = possible / Math.max(d, n)
  const omega = 0.56 * beta ** 3 - 0.95 * beta ** 2 + 1.82 * beta + 1.43
  const above = (threshold: number) => eigenvalues.filter((value) => value > threshold).length
  const parallel = parallelAnalysis(eigenvalues, count)
  return {
    rank: parallel,
    parallel,
    gavishDonoho: above(omega ** 2 * eigenvalues[Math.floor(possible / 2)]),
    marchenkoPastur: above(noiseEdge(eigenvalues, possible, beta, omega)),
    explained95,
    participationRatio: total ** 2 / squares,
    effectiveRank: Math.exp(entropy),
  }
}

/**
 * The upper edge of the Marchenko-Pastur law whose median is that of the eigenvalues below the edge: found from above, since
 * every component that is taken for signal moves the median of the rest down.
 */
function noiseEdge(eigenvalues: Float64Array, possible: number, beta: number, omega: number): number {
  // Gavish and Donoho give ω = λ* / √median, and λ* in closed form: so this is the median of the law.
  const best = 2 * (beta + 1) + (8 * beta) / (beta + 1 + Math.sqrt(beta ** 2 + 14 * beta + 1))
  const median = best / omega ** 2
  let signal = 0
  for (;;) {
    const middle = eigenvalues[Math.floor((signal + possible) / 2)]
    const edge = ((1 + Math.sqrt(beta)) ** 2 * middle) / median
    const found = eigenvalues.filter((value) => value > edge).length
    if (found <= signal || found >= possible) return edge
    signal = found
  }
}
