import { mergeSketches, type PcaSketch, sketchDirections } from './sketch.ts'
import { eigensystem } from './symmetric-eigen.ts'

/** The sufficient statistics of a PCA: they merge in any order. */
export interface PcaState {
  /** Rows seen. */
  readonly count: number
  /** f64 (d) */
  readonly mean: Float64Array
  /** f64 (d, d): sum over rows of (x − mean)(x − mean)ᵀ. */
  readonly scatter: Float64Array
}

/** What a stream leaves behind: the exact statistics, or a sketch of them where d is too large for that. */
export type AnyPcaState = PcaState | PcaSketch

/** Principal components, largest variance first. */
export interface Pca {
  readonly count: number
  readonly mean: Float64Array
  /** f64 (r): variances along the components, with n − 1 in the denominator. r is d, or at most ℓ from a sketch. */
  readonly eigenvalues: Float64Array
  /** f64 (d, k): the components as columns; k is r, or as many as were asked for. */
  readonly components: Float64Array
}

/** What {@link decompose} may leave out. */
export interface DecomposeOptions {
  /** False takes second moments about zero instead of variances, so that the mean is part of what is kept. */
  readonly centred?: boolean
  /** k, components wanted: few are found in a ninth of the time of all. All unless told. */
  readonly components?: number
}

/** Whether a state is a sketch. */
export function isSketch(state: AnyPcaState): state is PcaSketch {
  return 'rows' in state
}

/** f64 (d): the variance of each channel, with n − 1 in the denominator. Exact for sketches as well. */
export function channelVariances(state: AnyPcaState): Float64Array {
  const d = state.mean.length
  const diagonal = isSketch(state) ? state.diagonal : state.mean.map((_, i) => state.scatter[i * d + i])
  return diagonal.map((value) => value / Math.max(1, state.count - 1))
}

/**
 * The state of both streams together.
 * @throws RangeError when their dimensions differ; TypeError when one is a sketch and the other is not.
 * @see Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
 */
export function mergePcaStates<S extends AnyPcaState>(a: S, b: NoInfer<S>): S {
  if (isSketch(a) || isSketch(b)) {
    if (!(isSketch(a) && isSketch(b)))
      throw new TypeError('Cannot merge a sketch with an exact state: collect both streams the same way')
    return mergeSketches(a, b) as AnyPcaState as S
  }
  return mergeExact(a, b) as AnyPcaState as S
}

function mergeExact(a: PcaState, b: PcaState): PcaState {
  const d = a.mean.length
  if (b.mean.length !== d) throw new RangeError(`Cannot merge PCA states of dimensions ${d} and ${b.mean.length}`)
  if (a.count === 0 || b.count === 0) return a.count === 0 ? b : a
  const count = a.count + b.count
  const difference = a.mean.map((value, i) => b.mean[i] - value)
  const weight = (a.count * b.count) / count
  const scatter = new Float64Array(d * d)
  for (let i = 0, at = 0; i < d; i++) {
    const factor = weight * difference[i]
    for (let j = 0; j < d; j++, at++) scatter[at] = a.scatter[at] + b.scatter[at] + factor * difference[j]
  }
  return { count, mean: a.mean.map((value, i) => value + (difference[i] * b.count) / count), scatter }
}

/**
 * Eigenvectors and eigenvalues of the covariance.
 * @throws RangeError with fewer than two rows.
 */
export function decompose(state: AnyPcaState, { centred = true, components }: DecomposeOptions = {}): Pca {
  return decomposer(state, centred)(components)
}

/**
 * The same for whoever does not know yet how many components are wanted: the work that all of them share is done once.
 * @returns the decomposition with so many components; all unless told.
 */
export function decomposer(state: AnyPcaState, centred = true): (components?: number) => Pca {
  const { count, mean } = state
  if (count < 2) throw new RangeError(`Cannot decompose a PCA of ${count} rows: it needs two or more`)
  if (isSketch(state)) {
    const directions = sketchDirections(state, centred)
    return (wanted) => {
      const { values, components } = directions(wanted)
      return { count, mean, eigenvalues: values.map((value) => value / (count - 1)), components }
    }
  }
  const d = mean.length
  const covariance = new Float64Array(d * d)
  for (let i = 0; i < d; i++)
    for (let j = 0; j <= i; j++) {
      const moment = centred ? 0 : count * mean[i] * mean[j]
      covariance[i * d + j] = ((state.scatter[i * d + j] + state.scatter[j * d + i]) / 2 + moment) / (count - 1)
    }
  const { values, vectors } = eigensystem(covariance, d)
  const eigenvalues = values.map((value) => Math.max(0, value))
  return (wanted = d) => {
    const k = Math.min(d, wanted)
    return { count, mean, eigenvalues, components: columnsOf(vectors(k), k, d) }
  }
}

/** Rows (k, d) as columns (d, k). */
function columnsOf(rows: Float64Array, k: number, d: number): Float64Array {
  const columns = new Float64Array(d * k)
  for (let i = 0; i < k; i++) for (let c = 0; c < d; c++) columns[c * k + i] = rows[i * d + c]
  return columns
}
