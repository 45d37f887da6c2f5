/** Bytes where a window on a tensor may begin: every device has bindings at multiples of so many. */
export const windowBytes = 256

/** Of tensors with these columns, f32 or f16: windows may begin at every so many rows. */
export function windowRows(columns: readonly number[]): number {
  const rows = (bytes: number): number => (bytes % windowBytes === 0 ? 1 : 2 * rows(2 * bytes))
  return Math.max(...columns.map((count) => rows(2 * count)))
}
