/**
 * Adds |∂L/∂ξ| of every head of a layer, text by text: the slope of a gate ξ on the head is the sum over the tokens of a
 * text, and its size is what counts.
 * @param totals f64 (H), what to add to.
 * @param slopes x · dx of each head's features, (B, T, H).
 * @param tokens T
 * @throws RangeError when the slopes are not whole texts.
 * @see Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, 2019, section 4.1.
 */
export function addHeadSlopes(totals: Float64Array, slopes: ArrayLike<number>, tokens: number): void {
  const heads = totals.length
  if (slopes.length === 0 || slopes.length % (tokens * heads) !== 0)
    throw new RangeError(
      `Cannot add ${slopes.length} slopes: they must be texts of ${tokens} tokens and ${heads} heads`,
    )
  for (let begin = 0; begin < slopes.length; begin += tokens * heads)
    for (let h = 0; h < heads; h++) {
      let slope = 0
      for (let t = 0; t < tokens; t++) slope += slopes[begin + t * heads + h]
      totals[h] += Math.abs(slope)
    }
}

/** The importance of each head, L2-normalised in its layer; a layer without any stays zero. */
export function normaliseHeadImportance(totals: readonly Float64Array[]): number[][] {
  return totals.map((layer) => {
    const norm = Math.hypot(...layer)
    return Array.from(layer, (value) => (norm > 0 ? value / norm : 0))
  })
}
