import { Matrix, SingularValueDecomposition } from 'ml-matrix'

/** Choices of {@link IncrementalPca}. */
export interface IncrementalPcaOptions {
  /** k; the smaller side of the first batch unless told. */
  readonly nComponents?: number
  /** Divides what `transform` gives by its deviations. */
  readonly whiten?: boolean
  /** Rows a batch in `fit`; five times the columns unless told. */
  readonly batchSize?: number
}

/** Rows of numbers, all of one length. */
export type Rows = readonly ArrayLike<number>[]

const epsilon = Number.EPSILON

/**
 * scikit-learn's `IncrementalPCA`, number for number, in f64 on the host: names, values, signs and refusals. It keeps k
 * directions only, so the result depends on the order of the batches; {@link StreamingPca} is exact. It is here for
 * people who compare.
 *
 * @see scikit-learn 1.9, sklearn/decomposition/_incremental_pca.py; Ross et al., Incremental Learning for Robust Visual
 *   Tracking, 2008.
 */
export class IncrementalPca {
  readonly nComponents: number | undefined
  readonly whiten: boolean
  readonly batchSize: number | undefined
  /** f64 (d) by row: the components, largest variance first; the largest entry of each is positive. */
  components: Float64Array[] = []
  explainedVariance = new Float64Array(0)
  /** Explained variance over the variance of all columns. */
  explainedVarianceRatio = new Float64Array(0)
  singularValues = new Float64Array(0)
  /** f64 (d) */
  mean = new Float64Array(0)
  /** f64 (d), with n in the denominator. */
  var = new Float64Array(0)
  /** Mean variance of the directions that were found and not kept. */
  noiseVariance = 0
  nSamplesSeen = 0

  /** @throws RangeError when a number of components or of rows is not a positive integer. */
  constructor({ nComponents, whiten = false, batchSize }: IncrementalPcaOptions = {}) {
    for (const [name, value] of Object.entries({ nComponents, batchSize }))
      if (value !== undefined && !(Number.isInteger(value) && value >= 1))
        throw new RangeError(`Cannot make an IncrementalPca: ${name} must be a positive integer, got ${value}`)
    this.nComponents = nComponents
    this.whiten = whiten
    this.batchSize = batchSize
  }

  /**
   * Forgets what was seen and takes in all rows, batch by batch; a last batch smaller than k joins the one before it.
   * @throws RangeError as {@link partialFit} does.
   */
  fit(x: Rows): this {
    const columns = checkRows('fit', x)
    const size = this.batchSize ?? 5 * columns
    this.components = []
    this.nSamplesSeen = 0
    let begin = 0
    for (let i = 0; i < Math.floor(x.length / size); i++) {
      const end = begin + size
      if (end + (this.nComponents ?? 0) > x.length) continue
      this.partialFit(x.slice(begin, end))
      begin = end
    }
    if (begin < x.length) this.partialFit(x.slice(begin))
    return this
  }

  /**
   * Takes in one batch.
   * @param x rows of d finite numbers.
   * @throws RangeError when k is larger than d, or than the first batch; when d changes; for an empty batch or a number
   *   that is not finite; when k was left open and the first batch does not settle it.
   */
  partialFit(x: Rows): this {
    const columns = checkRows('partialFit', x)
    const first = this.components.length === 0
    if (!first && columns !== this.mean.length)
      throw new RangeError(
        `Cannot partialFit x [${x.length},${columns}]: IncrementalPca expects ${this.mean.length} features`,
      )
    const k = this.nComponents ?? (first ? Math.min(x.length, columns) : this.components.length)
    if (k > columns)
      throw new RangeError(`Cannot partialFit x [${x.length},${columns}]: nComponents is ${k}, at most ${columns} fit`)
    if (first && k > x.length)
      throw new RangeError(
        `Cannot partialFit x [${x.length},${columns}]: the first batch must have at least nComponents rows, ${k}`,
      )
    const before = first ? 0 : this.nSamplesSeen
    const total = before + x.length
    const batchMean = new Float64Array(columns)
    for (const row of x) for (let c = 0; c < columns; c++) batchMean[c] += row[c] / x.length
    const mean = batchMean.map((value, c) =>
      before === 0 ? value : (this.mean[c] * before + value * x.length) / total,
    )
    const variance = new Float64Array(columns)
    for (const row of x) for (let c = 0; c < columns; c++) variance[c] += (row[c] - batchMean[c]) ** 2
    for (let c = 0; c < columns; c++) {
      if (before > 0)
        variance[c] += before * this.var[c] + ((before * x.length) / total) * (this.mean[c] - batchMean[c]) ** 2
      variance[c] /= total
    }

    const stacked = x.map((row) => Array.from(row, (value, c) => value - batchMean[c]))
    if (before > 0) {
      stacked.unshift(...this.components.map((row, i) => Array.from(row, (value) => this.singularValues[i] * value)))
      const weight = Math.sqrt((before / total) * x.length)
      stacked.push(Array.from(batchMean, (value, c) => weight * (this.mean[c] - value)))
    }
    const { diagonal, rightSingularVectors: right } = new SingularValueDecomposition(new Matrix(stacked), {
      computeLeftSingularVectors: false,
      autoTranspose: true,
    })
    const found = Math.min(stacked.length, columns)
    const singular = Float64Array.from(diagonal.slice(0, found))
    const explained = singular.map((value) => value ** 2 / (total - 1))
    const all = variance.reduce((sum, value) => sum + value * total, 0)
    this.components = Array.from({ length: k }, (_, i) => positive(Float64Array.from(right.getColumn(i))))
    this.singularValues = singular.slice(0, k)
    this.explainedVariance = explained.slice(0, k)
    this.explainedVarianceRatio = this.singularValues.map((value) => value ** 2 / all)
    const rest = explained.slice(k)
    this.noiseVariance = k === x.length || k === columns ? 0 : rest.reduce((sum, value) => sum + value, 0) / rest.length
    this.mean = mean
    this.var = variance
    this.nSamplesSeen = total
    return this
  }

  /**
   * The rows of `x` along the components, (rows, k).
   * @throws RangeError before the first batch, or when the columns are not d.
   */
  transform(x: Rows): Float64Array[] {
    this.#expect('transform', x, this.mean.length)
    return x.map((row) =>
      Float64Array.from(this.components, (component, i) => {
        let dot = 0
        for (let c = 0; c < component.length; c++) dot += (row[c] - this.mean[c]) * component[c]
        return this.whiten ? dot / Math.max(Math.sqrt(this.explainedVariance[i]), epsilon) : dot
      }),
    )
  }

  /**
   * Rows (rows, d) whose transform is `y`.
   * @throws RangeError before the first batch, or when the columns are not k.
   */
  inverseTransform(y: Rows): Float64Array[] {
    this.#expect('inverseTransform', y, this.components.length)
    return y.map((row) => {
      const x = Float64Array.from(this.mean)
      for (const [i, component] of this.components.entries()) {
        const share = this.whiten ? Math.sqrt(this.explainedVariance[i]) * row[i] : row[i]
        for (let c = 0; c < x.length; c++) x[c] += share * component[c]
      }
      return x
    })
  }

  #expect(op: string, x: Rows, columns: number): void {
    if (this.components.length === 0)
      throw new RangeError(`Cannot ${op}: this IncrementalPca has seen nothing yet; call fit or partialFit`)
    const got = checkRows(op, x)
    if (got !== columns) throw new RangeError(`Cannot ${op} x [${x.length},${got}]: it must have ${columns} columns`)
  }
}

/** The number of columns. */
function checkRows(op: string, x: Rows): number {
  if (x.length === 0 || x[0].length === 0)
    throw new RangeError(`Cannot ${op}: x must have a row and a column, got [${x.length},${x[0]?.length ?? 0}]`)
  for (const [r, row] of x.entries()) {
    if (row.length !== x[0].length)
      throw new RangeError(`Cannot ${op}: row ${r} has ${row.length} numbers, the first one ${x[0].length}`)
    for (let c = 0; c < row.length; c++)
      if (!Number.isFinite(row[c])) throw new RangeError(`Cannot ${op}: x[${r},${c}] is ${row[c]}, not a finite number`)
  }
  return x[0].length
}

/** The vector or its negative, so that its largest entry is positive. */
function positive(vector: Float64Array): Float64Array {
  let largest = 0
  for (const value of vector) if (Math.abs(value) > Math.abs(largest)) largest = value
  return largest < 0 ? vector.map((value) => -value) : vector
}
