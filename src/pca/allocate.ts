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

/** A place with the spectrum of what flows there. */
export interface VariancePlace {
  readonly name: string
  /** Explained variance ratio of each component, largest first. */
  readonly ratios: ArrayLike<number>
  /** Parameters that one unit of rank costs there. */
  readonly cost: number
}

/**
 * Spends a budget of parameters as EVA does: the components of all places stand in one line by the share of their
 * place's variance that they explain, and the budget takes them from the front, `unit` at a time.
 * @param budget parameters in all.
 * @param unit ranks are multiples of it.
 * @param least rank that every place gets first; `unit` unless told.
 * @returns rank by name; a place never gets more than its spectrum has components, rounded up to units.
 * @throws RangeError when not even the least rank fits.
 * @see Paischer et al., Explained Variance Adaptation, 2024, section 3.
 */
export function allocateByVariance(
  places: readonly VariancePlace[],
  budget: number,
  { unit = 4, least = unit }: { unit?: number; least?: number } = {},
): Map<string, number> {
  const ranks = new Map(places.map(({ name }) => [name, least]))
  let spent = places.reduce((sum, { cost }) => sum + cost * least, 0)
  if (spent > budget)
    throw new RangeError(
      `Cannot give every place rank ${least}: that costs ${spent} parameters, the budget is ${Math.floor(budget)}`,
    )
  const line = places.flatMap((place) => {
    const steps = []
    for (let rank = least; rank < place.ratios.length; rank += unit) {
      let gain = 0
      for (let i = rank; i < Math.min(rank + unit, place.ratios.length); i++) gain += place.ratios[i]
      steps.push({ place, rank, gain })
    }
    return steps
  })
  line.sort((a, b) => b.gain - a.gain)
  // A place whose earlier step did not fit takes no later one.
  for (const { place, rank } of line)
    if (ranks.get(place.name) === rank && spent + place.cost * unit <= budget) {
      ranks.set(place.name, rank + unit)
      spent += place.cost * unit
    }
  return ranks
}
