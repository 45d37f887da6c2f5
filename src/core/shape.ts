/** Dimensions of a tensor, outermost first. Rank 0 is a scalar of one element. */
export type Shape = readonly number[]

/** Number of elements of `shape`. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((size, dimension) => size * dimension, 1)
}

/** `[5,37]`, as error messages write a shape. */
export function showShape(shape: Shape): string {
  return `[${shape.join(',')}]`
}

/** Whether two shapes are equal, dimension by dimension. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dimension, axis) => dimension === b[axis])
}

/**
 * The last dimension of `shape`, and the product of all others: (…, C) seen as (rows, C).
 * @throws RangeError for a scalar.
 */
export function rowsAndColumns(shape: Shape): { rows: number; columns: number } {
  if (shape.length === 0) throw new RangeError('Cannot split a scalar into rows: it has no dimension')
  const columns = shape[shape.length - 1]
  return { rows: sizeOf(shape.slice(0, -1)), columns }
}
