/** Times of many runs, in ms. */
export interface Timing {
  readonly median: number
  /** First and third quartile. */
  readonly quartiles: readonly [number, number]
  readonly samples: number
}

/** Median and quartiles of times in ms. */
export function timingOf(times: readonly number[]): Timing {
  const sorted = [...times].sort((a, b) => a - b)
  // Between two samples, the straight line.
  const at = (share: number) => {
    const place = share * (sorted.length - 1)
    const below = Math.floor(place)
    const above = Math.min(below + 1, sorted.length - 1)
    return sorted[below] + (place - below) * (sorted[above] - sorted[below])
  }
  return { median: at(0.5), quartiles: [at(0.25), at(0.75)], samples: sorted.length }
}

/** Whether the ranges between the quartiles have nothing in common. */
export function apart(a: Timing['quartiles'], b: Timing['quartiles']): boolean {
  return a[1] < b[0] || b[1] < a[0]
}
