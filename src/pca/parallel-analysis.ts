/** Components that fail in a row before the search ends. */
export const patience = 2

/** 99.9 % of the Tracy-Widom law of real noise lie below. */
const tracyWidom = 3.2724

/** Newton's steps at most; five to ten are usual. */
const mostSteps = 60

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
  // s > most with F(s) = γ · Σ (t / (s − t))² = 1. F^(−1/2) is concave and grows with s, so that Newton's steps from
  // below never pass the root; the largest variance alone gives a start that is below it.
  let s = most * (1 + Math.sqrt(gamma))
  for (let step = s, i = 0; step > Number.EPSILON * s && i < mostSteps; i++) {
    let [f, slope] = [0, 0]
    for (let k = 0; k < variances.length; k++) {
      const inverse = 1 / (s - variances[k])
      const u = variances[k] * inverse
      f += u * u
      slope += u * u * inverse
    }
    f *= gamma
    slope *= gamma
    step = (f * (Math.sqrt(f) - 1)) / slope
    if (step > 0) s += step
  }
  let [first, third] = [0, 0]
  for (let k = 0; k < variances.length; k++) {
    const u = variances[k] / (s - variances[k])
    first += u
    third += u * u * u
  }
  const edge = s * (1 + gamma * first)
  const spread = s * Math.cbrt(1 + gamma * third)
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
    // The edge grows with the noise: what restores the variances restores it.
    const edge = restore * largestNoiseEigenvalue(left, rows, d - k)
    if (value > (rows / n) * edge) rank = k + 1
    for (let i = 0; i < left.length; i++) {
      const share = channels ? channels.components[i * columns + k] : 0
      left[i] = Math.max(0, left[i] - (channels ? value * share * share : value / d))
    }
  }
  return rank
}
