import { Random } from '../core/random.ts'
import { type Batch, batchOf, padRowsTo, type Row } from '../train/batch.ts'
import type { CollectionPlan } from './sites.ts'

/** Lengths are rounded up to a multiple of this, so that few kernels and buffers are made. */
const lengthStep = 8

/**
 * The samples of a profile: the first `count` of the rows in an order that the seed decides, or a share of them.
 * @param shard `index` of `count` shards, which have no sample in common; together they are all samples.
 * @throws RangeError when there are no rows.
 */
export function chooseSamples(
  rows: readonly Row[],
  count: number,
  seed: number,
  shard: { readonly index: number; readonly count: number } = { index: 0, count: 1 },
): Row[] {
  if (rows.length === 0) throw new RangeError('Cannot profile: there are no samples')
  return new Random(seed)
    .shuffle([...rows])
    .slice(0, count)
    .filter((_, i) => i % shard.count === shard.index)
}

/** Rows in batches of `size`, each padded to its longest row. */
export function batchesOf(rows: readonly Row[], size: number): Batch[] {
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => {
    const part = rows.slice(i * size, (i + 1) * size)
    const longest = Math.max(...part.map(({ weights }) => weights.length))
    return batchOf(padRowsTo(part, Math.ceil(longest / lengthStep) * lengthStep))
  })
}

/** f32 (rows, tokens): 1 for tokens that count, 0 for padding and the first of each row. */
export function countedTokens({ rows, tokens, used }: Batch): Float32Array<ArrayBuffer> {
  // The first token of a row attends only to itself and has huge activations: it must not decide.
  return Float32Array.from({ length: rows * tokens }, (_, i) =>
    i % tokens > 0 && i % tokens < used[Math.floor(i / tokens)] ? 1 : 0,
  )
}

/** Batches whose picked tokens a PCA takes in at once. */
export interface PickedGroup {
  /** Numbers of its batches. */
  readonly begin: number
  readonly end: number
  /** Of each batch: flat indices of its picked tokens, and the row of the pool where they begin. */
  readonly picks: readonly { readonly indices: Uint32Array<ArrayBuffer>; readonly at: number }[]
  /** Rows of the pool. */
  readonly rows: number
}

/**
 * Batches in groups whose picked tokens fill pools of `most` rows: an update of a PCA costs nearly as much with few rows as
 * with many. A batch that picks more has a pool of its own. It depends on nothing but its arguments.
 * @param plan.window a batch begins at a multiple of so many rows of its pool.
 */
export function groupPicks(
  batches: readonly Batch[],
  { stride, window }: Pick<CollectionPlan, 'stride' | 'window'>,
  most: number,
): PickedGroup[] {
  const groups: { begin: number; end: number; picks: PickedGroup['picks'][number][]; rows: number }[] = []
  let [first, filled] = [0, Number.POSITIVE_INFINITY]
  for (const [i, batch] of batches.entries()) {
    const indices = pickTokens(batch, first, stride)
    first += batch.rows
    const size = window * Math.ceil(indices.length / window)
    if (filled + size > most) {
      groups.push({ begin: i, end: i, picks: [], rows: Math.max(most, size) })
      filled = 0
    }
    const group = groups.at(-1)!
    group.picks.push({ indices, at: filled })
    group.end = i + 1
    filled += size
  }
  return groups
}

/**
 * Which tokens a PCA takes: one of `stride`, another one in every row, so that no position is preferred.
 * @param first number of the batch's first row.
 * @returns flat indices.
 */
export function pickTokens(batch: Batch, first: number, stride: number): Uint32Array<ArrayBuffer> {
  const counted = countedTokens(batch)
  const picked: number[] = []
  for (let i = 0; i < counted.length; i++) {
    const [row, token] = [Math.floor(i / batch.tokens), i % batch.tokens]
    if (counted[i] === 1 && (token + first + row) % stride === 0) picked.push(i)
  }
  return Uint32Array.from(picked)
}
