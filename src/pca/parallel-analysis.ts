/** Components that fail in a row before the search ends. */
export const patience = 2

/** 99.9 % of the Tracy-Widom law of real noise lie below. */
const tracyWidom = 3.2724

/**
 * The eigenvalue that the covariance of `rows` rows of independent noise exceeds once in a thousand times. It takes the
 * place of simulated noise: the law of the largest eigenvalue is known for channels of any variances.
 * @param variances of the noise, channel by channel.
 * @param rows degrees of freedom.
 * @param columns dimensions that the noise fills, if not all channels.
 * @see El Karoui, Tracy-Widom Limit for the Largest Eigenvalue of a Large Class of Complex Sample Covariance Matrices,
 *   2007, theorem 1; Dobriban and Owen, Deterministic Parallel Analysis, 2019.
 */
export function largestNoiseEigenvalue(variances: Float64Array, rows: number, columns = variances.length): number {
  const most = variances.reduce((a, b) => Math.max(a, b), 0)
  if (!(most > 0) || rows < 1) return 0
  const gamma = columns / rows / variances.length
  const moment = (c: number, power: number) => {
    let sum = 0
    for (const value of variances) sum += ((value * c) / (1 - value * c)) ** power
    return gamma * sum
  }
  // c in (0, 1 / most) with γ · mean((t c / (1 − t c))²) = 1; the left side grows with c.
  let [low, high] = [0, 1 / most]
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2
    if (moment(middle, 2) < 1) low = middle
    else high = middle
  }
  const c = low
  const edge = (1 + moment(c, 1)) / c
  const spread = Math.cbrt(1 + moment(c, 3)) / c
  return edge + rows ** (-2 / 3) * spread * tracyWidom
}

/**
 * How many components are larger than noise of the same channels would show: parallel analysis with what was found
 * taken out before the noise is judged (deflation), so that large components do not hide small ones. Give it a
 * spectrum of correlations where channels may be unequally noisy: {@link estimateStateRank} does.
 * @param eigenvalues variances, largest first, d of them.
 * @param count rows that the spectrum was made from.
 * @param channels variances of the d channels and components (d, r) as columns; without them all channels are alike.
 * @see Horn, A Rationale and Test for the Number of Factors, 1965; Dobriban and Owen, 2019.
 */
export function parallelAnalysis(
  eigenvalues: Float64Array,
  count: number,
  channels?: { readonly variances: Float64Array; readonly components: Float64Array },
): number {
  const d = eigenvalues.length
  const n = count - 1
  const mean = eigenvalues.reduce((sum, value) => sum + value, 0) / d
  const left = channels ? Float64Array.from(channels.variances) : new Float64Array(1).fill(mean)
  const columns = channels ? channels.components.length / d : d
  const most = Math.min(d, n, columns) - 1
  let rank = 0
  for (let k = 0; k < most && k - rank < patience; k++) {
    const value = eigenvalues[k]
    // The k components before it also took their share of the noise: (n − k)(d − k) of n·d degrees are left.
    const restore = (n * d) / ((n - k) * (d - k))
    const rows = n - k
    const edge = largestNoiseEigenvalue(
      left.map((variance) => variance * restore),
      rows,
      d - k,
    )
    if (value > (rows / n) * edge) rank = k + 1
    for (let i = 0; i < left.length; i++) {
      const taken = channels ? value * channels.components[i * columns + k] ** 2 : value / d
      left[i] = Math.max(0, left[i] - taken)
    }
  }
  return rank
}
