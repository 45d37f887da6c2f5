/**
 * First fit, decreasing: items from the longest to the shortest, each into the first bin that has room. At most 11/9 of
 * the fewest possible bins, and one.
 * @param items whatever `sizeOf` measures; of equal sizes the earlier goes first.
 * @param capacity of a bin; a larger item has a bin of its own.
 * @see Johnson, Near-optimal bin packing algorithms, 1973.
 */
export function firstFitDecreasing<T>(items: readonly T[], sizeOf: (item: T) => number, capacity: number): T[][] {
  const sorted = items.map((item, i) => ({ item, i, size: sizeOf(item) })).sort((x, y) => y.size - x.size || x.i - y.i)
  const bins: T[][] = []
  const room: number[] = []
  for (const { item, size } of sorted) {
    const at = room.findIndex((left) => left >= size)
    if (at < 0) {
      bins.push([item])
      room.push(capacity - size)
    } else {
      bins[at].push(item)
      room[at] -= size
    }
  }
  return bins
}
