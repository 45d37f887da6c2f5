import type { Random } from '../core/random.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** One training row: `tokens` inputs, the token that follows each, and how much each prediction counts. */
export interface Row {
  /** u32 (T + 1): inputs are all but the last, targets all but the first. */
  readonly ids: ArrayLike<number>
  /** f32 (T), 0 where a prediction is not trained. */
  readonly weights: ArrayLike<number>
  /** Inputs that are not padding at the end; all unless told. */
  readonly used?: number
}

/** Draws training rows of one length. */
export interface RowSource {
  readonly name: string
  /** A row of `tokens` inputs. */
  row(random: Random, tokens: number): Row
}

/** Rows of one length, ready for the GPU. */
export interface Batch {
  readonly rows: number
  readonly tokens: number
  /** u32 (rows, tokens) */
  readonly ids: Uint32Array<ArrayBuffer>
  /** u32 (rows, tokens): the token after each. */
  readonly targets: Uint32Array<ArrayBuffer>
  /** f32 (rows, tokens) */
  readonly weights: Float32Array<ArrayBuffer>
  /** Sum of the weights. */
  readonly total: number
  /** u32 (rows): the tokens of each row that are not padding. */
  readonly used: Uint32Array<ArrayBuffer>
}

/** Rows padded at their ends to the longest; causal models do not see what comes after. */
export function padRows(rows: readonly Row[]): Row[] {
  return padRowsTo(rows, Math.max(...rows.map((row) => row.weights.length)))
}

/**
 * Rows padded at their ends to `tokens` inputs.
 * @throws RangeError when a row is longer.
 */
export function padRowsTo(rows: readonly Row[], tokens: number): Row[] {
  return rows.map(({ ids, weights, used = weights.length }) => {
    if (weights.length > tokens)
      throw new RangeError(`Cannot pad a row of ${weights.length} tokens to ${tokens}: cut it first`)
    return {
      ids: Uint32Array.from({ length: tokens + 1 }, (_, i) => ids[i] ?? 0),
      weights: Float32Array.from({ length: tokens }, (_, i) => weights[i] ?? 0),
      used,
    }
  })
}

/** A row without the padding at its end. */
export function trimRow({ ids, weights, used = weights.length }: Row): Row {
  return { ids: Array.from(ids).slice(0, used + 1), weights: Array.from(weights).slice(0, used), used }
}

/**
 * Rows as one batch.
 * @throws RangeError when they differ in length or there is none.
 */
export function batchOf(rows: readonly Row[]): Batch {
  const tokens = rows[0]?.weights.length
  if (!tokens || rows.some((row) => row.weights.length !== tokens || row.ids.length !== tokens + 1))
    throw new RangeError('Cannot batch rows: there must be one or more, all of one length')
  const size = rows.length * tokens
  const batch = { ids: new Uint32Array(size), targets: new Uint32Array(size), weights: new Float32Array(size) }
  let total = 0
  for (const [r, { ids, weights }] of rows.entries())
    for (let t = 0; t < tokens; t++) {
      batch.ids[r * tokens + t] = ids[t]
      batch.targets[r * tokens + t] = ids[t + 1]
      batch.weights[r * tokens + t] = weights[t]
      total += weights[t]
    }
  const used = Uint32Array.from(rows, (row) => row.used ?? tokens)
  return { rows: rows.length, tokens, total, used, ...batch }
}

/** `count` rows drawn from a source, as one batch. */
export function drawBatch(source: RowSource, random: Random, count: number, tokens: number): Batch {
  return batchOf(Array.from({ length: count }, () => source.row(random, tokens)))
}

/** A batch on the GPU. */
export interface BatchTensors {
  /** u32 (B, T) */
  readonly ids: Tensor<'u32'>
  /** u32 (B, T) */
  readonly targets: Tensor<'u32'>
  /** f32 (B, T) */
  readonly weights: Tensor<'f32'>
}

/** Uploads a batch into the memory of `step`, or of any scope. */
export function uploadBatch(step: Scope, { rows, tokens, ids, targets, weights }: Batch): BatchTensors {
  const shape = [rows, tokens]
  return {
    ids: step.upload('u32', shape, ids, 'ids'),
    targets: step.upload('u32', shape, targets, 'targets'),
    weights: step.upload('f32', shape, weights, 'weights'),
  }
}
