import { EigenvalueDecomposition, Matrix } from 'ml-matrix'

/** The sufficient statistics of a PCA: they merge in any order. */
export interface PcaState {
  /** Rows seen. */
  readonly count: number
  /** f64 (d) */
  readonly mean: Float64Array
  /** f64 (d, d): sum over rows of (x − mean)(x − mean)ᵀ. */
  readonly scatter: Float64Array
}

/** Principal components, largest variance first. */
export interface Pca {
  readonly count: number
  readonly mean: Float64Array
  /** f64 (d): variances along the components, with n − 1 in the denominator. */
  readonly eigenvalues: Float64Array
  /** f64 (d, d): the components as columns. */
  readonly components: Float64Array
}

/**
 * The state of both streams together.
 * @throws RangeError when their dimensions differ.
 * @see Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
 */
export function mergePcaStates(a: PcaState, b: PcaState): PcaState {
  const d = a.mean.length
  if (b.mean.length !== d) throw new RangeError(`Cannot merge PCA states of dimensions ${d} and ${b.mean.length}`)
  const count = a.count + b.count
  const difference = a.mean.map((value, i) => b.mean[i] - value)
  const weight = (a.count * b.count) / count
  return {
    count,
    mean: a.mean.map((value, i) => value + (difference[i] * b.count) / count),
    scatter: a.scatter.map(
      (value, i) => value + b.scatter[i] + weight * difference[Math.floor(i / d)] * difference[i % d],
    ),
  }
}

/**
 * Eigenvectors and eigenvalues of the covariance.
 * @param options.centred false takes second moments about zero instead, so that the mean is part of what is kept.
 * @throws RangeError with fewer than two rows.
 */
export function decompose({ count, mean, scatter }: PcaState, { centred = true } = {}): Pca {
  if (count < 2) throw new RangeError(`Cannot decompose a PCA of ${count} rows: it needs two or more`)
  const d = mean.length
  const covariance = new Matrix(d, d)
  for (let i = 0; i < d; i++)
    for (let j = 0; j < d; j++) {
      const moment = centred ? 0 : count * mean[i] * mean[j]
      covariance.set(i, j, ((scatter[i * d + j] + scatter[j * d + i]) / 2 + moment) / (count - 1))
    }
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(covariance, { assumeSymmetric: true })
  const order = [...realEigenvalues.keys()].sort((a, b) => realEigenvalues[b] - realEigenvalues[a])
  const components = new Float64Array(d * d)
  for (const [rank, column] of order.entries())
    for (let i = 0; i < d; i++) components[i * d + rank] = eigenvectorMatrix.get(i, column)
  return { count, mean, eigenvalues: Float64Array.from(order, (i) => Math.max(0, realEigenvalues[i])), components }
}
