/** Estimates of how many components carry signal. Each is a number of components, not always whole. */
export interface RankEstimates {
  /** Components above the Gavish-Donoho threshold, which one huge channel hardly moves: the default. */
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

/**
 * Rank estimates from a spectrum.
 * @param eigenvalues variances, largest first.
 * @param count rows that the spectrum was made from.
 * @see Gavish and Donoho, The Optimal Hard Threshold for Singular Values is 4/√3, 2014, for unknown noise; Marchenko
 *   and Pastur, 1967; Roy and Vetterli, The Effective Rank, 2007.
 */
export function estimateRank(eigenvalues: Float64Array, count: number): RankEstimates {
  const total = eigenvalues.reduce((sum, value) => sum + value, 0)
  if (!(total > 0))
    return { gavishDonoho: 0, marchenkoPastur: 0, explained95: 0, participationRatio: 0, effectiveRank: 0 }
  const squares = eigenvalues.reduce((sum, value) => sum + value * value, 0)
  const entropy = eigenvalues.reduce(
    (sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum),
    0,
  )
  let explained = 0
  let explained95 = 0
  while (explained95 < eigenvalues.length && explained < 0.95 * total) explained += eigenvalues[explained95++]

  const beta = Math.min(1, eigenvalues.length / count)
  const median = eigenvalues[Math.floor(eigenvalues.length / 2)]
  const omega = 0.56 * beta ** 3 - 0.95 * beta ** 2 + 1.82 * beta + 1.43
  const above = (threshold: number) => eigenvalues.filter((value) => value > threshold).length
  return {
    gavishDonoho: above(omega ** 2 * median),
    // The median of the law lies near its mean for small beta, so the median eigenvalue stands for the noise.
    marchenkoPastur: above((1 + Math.sqrt(beta)) ** 2 * median),
    explained95,
    participationRatio: total ** 2 / squares,
    effectiveRank: Math.exp(entropy),
  }
}

/** A place where rank can be spent. */
export interface RankPlace {
  readonly name: string
  /** Estimated dimension of what the place must carry. */
  readonly dimension: number
  /** Parameters that one unit of rank costs there. */
  readonly cost: number
}

/**
 * Spends a budget of parameters over places in proportion to their dimension, in units of `unit`: every place gets one
 * unit, then whichever is furthest below its share gets the next.
 * @param budget parameters in all.
 * @param unit ranks are multiples of it; kernels run along fours.
 * @returns rank by name.
 * @throws RangeError when not even one unit for every place fits.
 */
export function allocateRanks(places: readonly RankPlace[], budget: number, unit = 4): Map<string, number> {
  const ranks = new Map(places.map(({ name }) => [name, unit]))
  let spent = places.reduce((sum, { cost }) => sum + cost * unit, 0)
  if (spent > budget)
    throw new RangeError(
      `Cannot give every place rank ${unit}: that costs ${spent} parameters, the budget is ${Math.floor(budget)}`,
    )
  const hunger = ({ name, dimension }: RankPlace) => dimension / ranks.get(name)!
  for (;;) {
    const open = places.filter(
      (place) => spent + place.cost * unit <= budget && ranks.get(place.name)! + unit <= place.dimension,
    )
    if (open.length === 0) return ranks
    const next = open.reduce((best, place) => (hunger(place) > hunger(best) ? place : best))
    ranks.set(next.name, ranks.get(next.name)! + unit)
    spent += next.cost * unit
  }
}
