// What streaming PCA is made of.
import { EigenvalueDecomposition, Matrix } from 'ml-matrix'
import { type Array64, mapped, rowsOf, zeros } from './array64.ts'
import { product } from './products.ts'

/** weights[r] · (x[r] − shift). */
export function centre64(x: Array64, weights: Array64, shift: Array64): Array64 {
  const y = mapped((value, by) => value - by, x, shift)
  for (const [r, row] of rowsOf(y).entries()) for (let c = 0; c < row.length; c++) row[c] *= weights.data[r]
  return y
}

/** Σ weights[r] · (x[r] − shift), column by column. */
export function columnSums64(x: Array64, weights: Array64, shift: Array64): Array64 {
  const y = zeros(x.shape[1])
  for (const row of rowsOf(centre64(x, weights, shift))) for (let c = 0; c < row.length; c++) y.data[c] += row[c]
  return y
}

/** Σ weights[r] · (x[r] − shift)(x[r] − shift)ᵀ: (C, C). */
export function scatter64(x: Array64, weights: Array64, shift: Array64): Array64 {
  const moved = mapped((value, by) => value - by, x, shift)
  return product(centre64(x, weights, shift), moved, true)
}

/**
 * One shrink of Frequent Directions: the sketch of `kept` rows and zeros, and the eigenvalue that was taken off.
 * @param made the sketch that is judged: a row is right with either sign, so its signs are taken over.
 */
export function shrink64(buffer: Array64, kept: number, made: ArrayLike<number>): { sketch: Array64; shed: number } {
  const [n, columns] = buffer.shape
  const gram = product(buffer, buffer, false, true)
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(
    Matrix.from1DArray(n, n, gram.data as unknown as number[]),
    { assumeSymmetric: true },
  )
  const order = [...realEigenvalues.keys()].sort((a, b) => realEigenvalues[b] - realEigenvalues[a])
  const shed = realEigenvalues[order[kept]]
  const rotation = zeros(kept, n)
  for (const [r, at] of order.slice(0, kept).entries())
    for (let i = 0; i < n; i++)
      rotation.data[r * n + i] = Math.sqrt(1 - shed / realEigenvalues[at]) * eigenvectorMatrix.get(i, at)
  const sketch = zeros(n, columns)
  sketch.data.set(product(rotation, buffer).data)
  for (const [r, row] of rowsOf(sketch).entries()) {
    const likeness = row.reduce((all, value, c) => all + value * made[r * columns + c], 0)
    if (likeness < 0) for (let c = 0; c < columns; c++) row[c] = -row[c]
  }
  return { sketch, shed }
}
