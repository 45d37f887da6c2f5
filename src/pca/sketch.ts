import { eigensystem } from './symmetric-eigen.ts'

/**
 * The state of Frequent Directions: rows B whose BᵀB stands for the centred scatter S of all rows seen. 0 ≤ S − BᵀB ≤
 * shed, and shed ≤ (sum of the eigenvalues of S after the k-th) / (ℓ − k) for every k < ℓ.
 */
export interface PcaSketch {
  /** Rows seen. */
  readonly count: number
  /** f64 (d) */
  readonly mean: Float64Array
  /** ℓ */
  readonly size: number
  /** f64 (r, d), r ≤ 2ℓ. */
  readonly rows: Float64Array
  /** f64 (d): the diagonal of S, exact. */
  readonly diagonal: Float64Array
  /** What all shrinks took off any direction. */
  readonly shed: number
}

/** The eigensystem of rows·rowsᵀ, r small. */
function gramEigen(rows: Float64Array, r: number, d: number) {
  const gram = new Float64Array(r * r)
  for (let i = 0; i < r; i++) {
    const own = rows.subarray(i * d, (i + 1) * d)
    let j = 0
    // Four rows at a time: one walk through `own` for all of them.
    for (; j + 4 <= i + 1; j += 4) {
      const [r0, r1, r2, r3] = [j * d, (j + 1) * d, (j + 2) * d, (j + 3) * d]
      let [s0, s1, s2, s3] = [0, 0, 0, 0]
      for (let k = 0; k < d; k++) {
        const value = own[k]
        s0 += value * rows[r0 + k]
        s1 += value * rows[r1 + k]
        s2 += value * rows[r2 + k]
        s3 += value * rows[r3 + k]
      }
      gram[i * r + j] = s0
      gram[i * r + j + 1] = s1
      gram[i * r + j + 2] = s2
      gram[i * r + j + 3] = s3
    }
    for (; j <= i; j++) {
      let dot = 0
      for (let k = 0; k < d; k++) dot += own[k] * rows[j * d + k]
      gram[i * r + j] = dot
    }
    for (j = 0; j < i; j++) gram[j * r + i] = gram[i * r + j]
  }
  const { values, vectors } = eigensystem(gram, r)
  return { values: Array.from(values, (value) => Math.max(0, value)), vectors }
}

/** The rows of a sketch turned along its principal directions and multiplied by `scale(eigenvalue)`, the first `kept`. */
function turn(rows: Float64Array, d: number, kept: number, scale: (value: number, values: number[]) => number) {
  return turnRows(rows, d, gramEigen(rows, rows.length / d, d), kept, scale)
}

/** @param before the first of the result, where they were found earlier. */
function turnRows(
  rows: Float64Array,
  d: number,
  system: ReturnType<typeof gramEigen>,
  kept: number,
  scale: (value: number, values: number[]) => number,
  before = new Float64Array(0),
) {
  const r = rows.length / d
  const count = Math.min(kept, r)
  const { values } = system
  const vectors = system.vectors(count)
  const turned = new Float64Array(count * d)
  turned.set(before.subarray(0, count * d))
  for (let i = before.length / d; i < count; i++) {
    const own = turned.subarray(i * d, (i + 1) * d)
    const factor = scale(values[i], values)
    let k = 0
    // Four rows at a time: one walk through `own` for all of them.
    for (; k + 4 <= r; k += 4) {
      const at = i * r + k
      const [v0, v1, v2, v3] = [vectors[at], vectors[at + 1], vectors[at + 2], vectors[at + 3]]
      const [r0, r1, r2, r3] = [k * d, (k + 1) * d, (k + 2) * d, (k + 3) * d]
      for (let c = 0; c < d; c++)
        own[c] += v0 * rows[r0 + c] + v1 * rows[r1 + c] + v2 * rows[r2 + c] + v3 * rows[r3 + c]
    }
    for (; k < r; k++) for (let c = 0; c < d; c++) own[c] += vectors[i * r + k] * rows[k * d + c]
    for (let c = 0; c < d; c++) own[c] *= factor
  }
  return { values, turned }
}

/**
 * The sketch of both streams together: their rows and the row that joining their means adds, shrunk to ℓ if they are more
 * than 2ℓ. The bound of {@link PcaSketch} holds for the result.
 * @throws RangeError when their dimensions or sizes differ.
 */
export function mergeSketches(a: PcaSketch, b: PcaSketch): PcaSketch {
  const d = a.mean.length
  if (b.mean.length !== d || a.size !== b.size)
    throw new RangeError(
      `Cannot merge sketches of ${a.size} rows of ${d} and of ${b.size} rows of ${b.mean.length}: they must be alike`,
    )
  if (a.count === 0 || b.count === 0) return a.count === 0 ? b : a
  const count = a.count + b.count
  const weight = a.count * (b.count / count)
  const difference = a.mean.map((value, i) => b.mean[i] - value)
  const rows = new Float64Array(a.rows.length + b.rows.length + d)
  rows.set(a.rows)
  rows.set(b.rows, a.rows.length)
  rows.set(
    difference.map((value) => Math.sqrt(weight) * value),
    a.rows.length + b.rows.length,
  )
  const joined = {
    count,
    mean: a.mean.map((value, i) => value + (difference[i] * b.count) / count),
    size: a.size,
    diagonal: a.diagonal.map((value, i) => value + b.diagonal[i] + weight * difference[i] ** 2),
    rows,
    shed: a.shed + b.shed,
  }
  if (rows.length / d <= 2 * a.size) return joined
  const { values, turned } = turn(rows, d, a.size, (value, all) =>
    value > 0 ? Math.sqrt(Math.max(0, value - all[a.size]) / value) : 0,
  )
  return { ...joined, rows: turned, shed: joined.shed + values[a.size] }
}

/**
 * The principal directions of a sketch.
 * @param centred false adds the mean's own row, for second moments about zero.
 * @returns of so many wanted, all unless told: scatter eigenvalues along them, largest first, at most ℓ, and the directions as columns (d, k).
 */
export function sketchDirections(sketch: PcaSketch, centred: boolean) {
  const d = sketch.mean.length
  let { rows } = sketch
  if (!centred) {
    rows = new Float64Array(sketch.rows.length + d)
    rows.set(sketch.rows)
    rows.set(
      sketch.mean.map((value) => Math.sqrt(sketch.count) * value),
      sketch.rows.length,
    )
  }
  const { size } = sketch
  const system = gramEigen(rows, rows.length / d, d)
  const unit = (value: number) => (value > 0 ? 1 / Math.sqrt(value) : 0)
  let longest = new Float64Array(0)
  return (wanted = size) => {
    const { values, turned } = turnRows(rows, d, system, Math.min(wanted, size), unit, longest)
    if (turned.length > longest.length) longest = turned
    // Directions of no length are noise of the elimination, not directions.
    const found = values.slice(0, size).filter((value) => value > 1e-12 * values[0]).length
    const kept = Math.min(found, turned.length / d)
    const components = new Float64Array(d * kept)
    for (let i = 0; i < kept; i++) for (let c = 0; c < d; c++) components[c * kept + i] = turned[i * d + c]
    return { values: Float64Array.from(values.slice(0, found)), components }
  }
}
