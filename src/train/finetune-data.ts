import { Random } from '../core/random.ts'
import { DataOrder } from '../data/order.ts'
import { type PackedBatch, packBatch } from '../data/packed-batch.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { CachedRows } from './row-cache.ts'

/** How the data of a fine-tuning run is cut into batches. */
export interface FinetuneDataOptions {
  readonly seed: number
  /** Rows a batch. */
  readonly batch: number
  /** Batches a step. */
  readonly accumulate: number
  /** Most tokens of a row. */
  readonly length: number
  readonly packing: boolean
  /** Share of the records that is kept for evaluation. */
  readonly evalShare: number
}

/** The batches of one step. */
export interface StepData {
  readonly parts: readonly PackedBatch[]
  /** Weights of all parts together. */
  readonly total: number
  /** Tokens that are not padding. */
  readonly used: number
}

/** A share of some rows, with their order. */
class Split {
  readonly order: DataOrder
  readonly #rows: CachedRows
  readonly #chosen: readonly number[]
  readonly #length: number

  constructor(rows: CachedRows, chosen: readonly number[], options: FinetuneDataOptions, inOrder: boolean) {
    const { seed, batch, length, packing } = options
    this.#rows = rows
    this.#chosen = chosen
    this.#length = length
    const lengths = chosen.map((row) => rows.lengths[row])
    this.order = new DataOrder(lengths, { seed, rows: batch, tokens: length, packing, inOrder })
  }

  get size(): number {
    return this.#chosen.length
  }

  async batch(index: number): Promise<PackedBatch> {
    const rows = this.order.batch(index).map((row) => Promise.all(row.map((i) => this.#rows.row(this.#chosen[i]))))
    return packBatch(await Promise.all(rows), this.#length)
  }

  /** Where the sequences of each row of a batch came from. */
  places(index: number): string[][] {
    return this.order.batch(index).map((row) => row.map((i) => this.#rows.place(this.#chosen[i])))
  }
}

/** Training and evaluation batches of a run. A record is in one of the two, with all its rows. */
export class FinetuneData {
  readonly #options: FinetuneDataOptions
  readonly #train: Split
  readonly #eval: Split | undefined

  /** @throws RangeError when the evaluation's share leaves nothing to learn from. */
  constructor(rows: CachedRows, options: FinetuneDataOptions) {
    this.#options = options
    const records = new Random(options.seed).shuffle([...new Set(rows.records)])
    const count = options.evalShare === 0 ? 0 : Math.max(1, Math.round(options.evalShare * records.length))
    if (count >= records.length)
      throw new RangeError(
        `Cannot keep ${count} of ${records.length} records for evaluation: nothing is left to learn from`,
      )
    const kept = new Set(records.slice(0, count))
    const all = [...rows.lengths.keys()]
    const held = all.filter((row) => kept.has(rows.records[row]))
    this.#train = new Split(
      rows,
      all.filter((row) => !kept.has(rows.records[row])),
      options,
      false,
    )
    this.#eval = held.length > 0 ? new Split(rows, held, options, true) : undefined
  }

  /** Rows to learn from, and rows to score. */
  get sizes(): { train: number; eval: number } {
    return { train: this.#train.size, eval: this.#eval?.size ?? 0 }
  }

  /** Steps of `epochs` epochs, a fraction among them. */
  stepsOf(epochs: number): number {
    let batches = 0
    for (let epoch = 0; epoch < epochs; epoch++)
      batches += this.#train.order.batchesIn(epoch) * Math.min(1, epochs - epoch)
    return Math.max(1, Math.ceil(batches / this.#options.accumulate))
  }

  /** What step `index` learns from. */
  async step(index: number): Promise<StepData> {
    const parts: PackedBatch[] = []
    for (const batch of this.#batches(index)) parts.push(await this.#train.batch(batch))
    const sum = (of: (part: PackedBatch) => number) => parts.reduce((all, part) => all + of(part), 0)
    return { parts, total: sum(({ total }) => total), used: sum(({ used }) => used) }
  }

  /** `data.jsonl:3, data.jsonl:17`: where rows of step `index`, counted over its batches, came from; all unless told. */
  places(index: number, rows?: readonly number[]): string {
    const all = this.#batches(index).flatMap((batch) => this.#train.places(batch))
    return (rows ? rows.map((row) => all[row]) : all).flat().join(', ')
  }

  /** The batches to score, each row once. */
  async *evaluation(): AsyncGenerator<PackedBatch> {
    if (!this.#eval) return
    const count = this.#eval.order.batchesIn(0)
    for (let batch = 0; batch < count; batch++) yield await this.#eval.batch(batch)
  }

  #batches(index: number): number[] {
    const { accumulate } = this.#options
    return Array.from({ length: accumulate }, (_, part) => index * accumulate + part)
  }
}

/** A packed batch on the GPU. */
export interface PackedBatchTensors {
  /** u32 (B, T) */
  readonly ids: Tensor<'u32'>
  /** u32 (B, T) */
  readonly targets: Tensor<'u32'>
  /** f32 (B, T): what each loss counts. */
  readonly weights: Tensor<'f32'>
  /** u32 (B, T, 2): the keys that each token may see, its own sequence's and later ones, which causality hides. */
  readonly ranges: Tensor<'u32'>
}

/** Room for packed batches of one shape. */
export function emptyPacked(scope: Scope, rows: number, tokens: number): PackedBatchTensors {
  const shape = [rows, tokens]
  return {
    ids: scope.empty('u32', shape, 'ids'),
    targets: scope.empty('u32', shape, 'targets'),
    weights: scope.empty('f32', shape, 'weights'),
    ranges: scope.empty('u32', [...shape, 2], 'ranges'),
  }
}

/**
 * Writes a batch.
 * @param total what its weights are divided by.
 */
export function writePacked(gpu: Gpu, tensors: PackedBatchTensors, batch: PackedBatch, total: number): void {
  const ranges = new Uint32Array(2 * batch.starts.length).fill(batch.tokens)
  for (const [i, start] of batch.starts.entries()) ranges[2 * i] = start
  gpu.write(tensors.ids, batch.ids)
  gpu.write(tensors.targets, batch.targets)
  gpu.write(
    tensors.weights,
    batch.weights.map((weight) => weight / total),
  )
  gpu.write(tensors.ranges, ranges)
}

/** A batch of full rows, of which every token is learned: what takes most memory and time. */
export function fullBatch({ batch: rows, length: tokens }: FinetuneDataOptions): PackedBatch {
  const size = rows * tokens
  return {
    ...{ rows, tokens, total: size, used: size },
    ids: new Uint32Array(size),
    targets: new Uint32Array(size),
    weights: new Float32Array(size).fill(1),
    starts: new Uint32Array(size),
  }
}
