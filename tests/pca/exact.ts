import { Matrix, SingularValueDecomposition } from 'ml-matrix'
import type { Random } from '../../src/core/random.ts'
import type { PcaState } from '../../src/pca/pca-state.ts'

/** Rows of a Gaussian whose axes have deviations 1/c, mixed by a reflection, and a mean of 5. */
export function powerLaw(random: Random, rows: number, d: number, mean = 5): Float32Array<ArrayBuffer> {
  const axis = Array.from({ length: d }, () => random.normal())
  const norm = axis.reduce((sum, value) => sum + value * value, 0)
  const x = new Float32Array(rows * d)
  const z = new Float64Array(d)
  for (let r = 0; r < rows; r++) {
    let dot = 0
    for (let c = 0; c < d; c++) {
      z[c] = random.normal() / (c + 1)
      dot += z[c] * axis[c]
    }
    for (let c = 0; c < d; c++) x[r * d + c] = mean + z[c] - (2 * dot * axis[c]) / norm
  }
  return x
}

/** The state of the rows of `x` by plain loops in f64. */
export function exactState(x: ArrayLike<number>, rows: number, d: number): PcaState {
  const mean = new Float64Array(d)
  for (let r = 0; r < rows; r++) for (let c = 0; c < d; c++) mean[c] += x[r * d + c] / rows
  const scatter = new Float64Array(d * d)
  const z = new Float64Array(d)
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < d; c++) z[c] = x[r * d + c] - mean[c]
    for (let i = 0; i < d; i++) for (let j = i; j < d; j++) scatter[i * d + j] += z[i] * z[j]
  }
  for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) scatter[i * d + j] = scatter[j * d + i]
  return { count: rows, mean, scatter }
}

/** Sine of the largest angle between the spans of the first k columns of a and of b, (d, ≥ k) with orthonormal columns. */
export function largestSine(a: Float64Array, b: Float64Array, d: number, k: number): number {
  const [aColumns, bColumns] = [a.length / d, b.length / d]
  // The part of b that a does not span: its largest singular value is the sine, without the cancellation of 1 − cos².
  const rest = new Matrix(d, k)
  for (let j = 0; j < k; j++) {
    for (let c = 0; c < d; c++) rest.set(c, j, b[c * bColumns + j])
    for (let i = 0; i < k; i++) {
      let dot = 0
      for (let c = 0; c < d; c++) dot += a[c * aColumns + i] * b[c * bColumns + j]
      for (let c = 0; c < d; c++) rest.set(c, j, rest.get(c, j) - dot * a[c * aColumns + i])
    }
  }
  return new SingularValueDecomposition(rest).diagonal[0]
}
