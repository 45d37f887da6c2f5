import type { FloatType } from '../core/dtype.ts'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import { accumulate } from '../kernels/centre.ts'
import { takeRows } from '../kernels/embedding.ts'
import { headArgmax } from '../kernels/head-select.ts'
import { cosine, squaredError } from '../kernels/row-distance.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder } from '../models/decoder.ts'
import { outlierTokens } from '../pca/massive.ts'
import { StreamingPca } from '../pca/streaming-pca.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Batch, uploadBatch } from '../train/batch.ts'
import { countedTokens, groupPicks, type PickedGroup } from './samples.ts'
import type { CollectionPlan } from './sites.ts'
import { SnapshotFile, type SnapshotPart, writeSnapshots } from './snapshot-file.ts'

/** What a pass over the data finds beside the PCAs. */
export interface CollectFacts {
  /** Batches that were taken in. */
  readonly batches: number
  /** Tokens that count, and those among them that the PCAs took. */
  readonly counted: number
  readonly picked: number
  /** By site. */
  readonly counters: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** By layer: Σ cos(in, out) over the tokens that count. */
  readonly cosines: readonly number[]
  readonly outliers: readonly { readonly share: number; readonly positions: readonly number[] }[]
  readonly rawOutputs: readonly { readonly input: string; readonly predicted: string }[]
}

/** What {@link collectPass} needs. */
export interface CollectOptions {
  readonly decoder: Decoder
  readonly tokenizer: Tokenizer
  readonly batches: readonly Batch[]
  readonly plan: CollectionPlan
  readonly pass: number
  /** Tokens that a PCA takes in at once. */
  readonly pooled: number
  /** Where the state of the pass is kept. */
  readonly path: string
  readonly task: string
  /** Batches between two saves; 0 saves by the clock. */
  readonly saveEvery: number
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

const mostRawOutputs = 50
const secondsBetweenSaves = 120

/**
 * One pass over the data: every activation of the pass is taken into its PCA where it lies. The state is saved now and
 * then, and when the signal is aborted; a pass that was stopped goes on, to the same state to the last bit.
 * @throws InterruptedError when the signal is aborted.
 */
export async function collectPass(options: CollectOptions): Promise<CollectFacts> {
  await using before = await SnapshotFile.open(options.path)
  const known = before?.facts as CollectFacts | undefined
  if (known?.batches === options.batches.length) return known
  using collection = new Collection(options, known)
  if (before) await collection.restore(before)
  const { batches, task, signal, onProgress } = options
  let [saved, savedAt] = [known?.batches ?? 0, performance.now()]
  const groups = groupPicks(batches, options.plan, options.pooled)
  for (const group of groups.filter(({ begin }) => begin >= saved)) {
    if (signal?.aborted) {
      await collection.save()
      throw new InterruptedError(`Stopped ${task} at batch ${group.begin} of ${batches.length}; it goes on from there`)
    }
    // Only between groups, where no picked activation waits: none is ever on disk.
    const due =
      options.saveEvery > 0
        ? group.begin - saved >= options.saveEvery
        : performance.now() - savedAt > 1000 * secondsBetweenSaves
    if (due) {
      await collection.save()
      saved = group.begin
      savedAt = performance.now()
    }
    await collection.add(group, (done) => onProgress({ task, done, total: batches.length, unit: 'batches' }))
  }
  await collection.save()
  return collection.facts()
}

class Collection implements Disposable {
  readonly #options: CollectOptions
  readonly #gpu: Gpu
  readonly #collectors: Map<string, StreamingPca>
  readonly #cosines: readonly Tensor<'f32'>[]
  readonly #scope
  #batches = 0
  #counted = 0
  #picked = 0
  #outliers: CollectFacts['outliers'][number][] = []
  #raw: CollectFacts['rawOutputs'][number][] = []

  constructor(options: CollectOptions, known: CollectFacts | undefined) {
    const { decoder, plan, pass } = options
    this.#options = options
    this.#gpu = decoder.gpu
    this.#scope = this.#gpu.scope('profile')
    this.#collectors = new Map()
    this.#cosines = Array.from({ length: decoder.config.layers }, () => this.#scope.filled('f32', [1], 0, 'cosine'))
    if (known) {
      this.#batches = known.batches
      this.#counted = known.counted
      this.#picked = known.picked
      this.#outliers = [...known.outliers]
      this.#raw = [...known.rawOutputs]
    }
    this.#names = new Set(plan.passes[pass])
  }

  readonly #names: ReadonlySet<string>

  async restore(file: SnapshotFile): Promise<void> {
    const { counters, cosines } = file.facts as CollectFacts
    for (const [name, own] of Object.entries(counters)) {
      const tensors = await file.tensors(name)
      // Vectors are a multiple of four long: the sites of the model say how long they are meant.
      const pca = this.#collector(name, own.dimension)
      pca.restore({ counters: own, tensors })
    }
    for (const [layer, value] of cosines.entries()) this.#gpu.write(this.#cosines[layer], [value])
  }

  #collector(name: string, dimension: number): StreamingPca {
    const found = this.#collectors.get(name)
    if (found) return found
    const pca = new StreamingPca(this.#gpu, dimension, { method: this.#options.plan.methods[name] })
    this.#collectors.set(name, pca)
    return pca
  }

  /** Takes in a group of batches. */
  async add(group: PickedGroup, onBatch: (done: number) => void): Promise<void> {
    const { batches } = this.#options
    using pools = this.#gpu.scope('pools')
    const pooled = new Map<string, Tensor<FloatType>>()
    for (const [i, batch] of batches.slice(group.begin, group.end).entries()) {
      const { indices, at } = group.picks[i]
      await this.#addBatch(batch, indices, (step, name, x, picks) => {
        const d = x.shape[2]
        let pool = pooled.get(name)
        if (!pool) {
          pool = pools.empty(x.dtype, [group.rows, d], 'pool')
          pooled.set(name, pool)
        }
        takeRows(step, step.reshape(x, [x.size / d, d]), picks, step.rows(pool, at, at + picks.size))
      })
      onBatch(group.begin + i + 1)
    }
    const weights = new Float32Array(group.rows)
    for (const { indices, at } of group.picks) weights.fill(1, at, at + indices.length)
    const count = weights.reduce((sum, value) => sum + value, 0)
    if (count === 0) return
    using step = this.#gpu.step({ label: this.#options.task })
    const column = step.upload('f32', [group.rows], weights)
    for (const [name, pool] of pooled) this.#collector(name, pool.shape[1]).update(step, pool, column, count)
    await this.#gpu.finish()
  }

  async #addBatch(
    batch: Batch,
    indices: Uint32Array<ArrayBuffer>,
    take: (step: Step, name: string, x: Tensor<FloatType>, picks: Tensor<'u32'>) => void,
  ): Promise<void> {
    const { decoder, pass, tokenizer, task } = this.#options
    const { layers } = decoder.config
    using step = this.#gpu.step({ label: task })
    const { ids } = uploadBatch(step, batch)
    const counted = countedTokens(batch)
    const total = counted.reduce((sum, value) => sum + value, 0)
    const weights = step.upload('f32', [batch.rows, batch.tokens], counted)
    const picks = indices.length > 0 ? step.upload('u32', [indices.length], indices, 'picks') : undefined
    const first = pass === 0
    const squares: Tensor<'f32'>[] = []
    const last = Math.max(...[...this.#names].map((name) => Number.parseInt(name, 10))) + 1
    const wantsRaw = first && this.#raw.length < mostRawOutputs
    let input: Tensor<FloatType> | undefined
    const hidden = decoder.hidden(step, ids, {
      end: first ? layers : last,
      observe: (name, x) => {
        const layer = Number.parseInt(name, 10)
        if (first && (name === 'embedding' || name.endsWith('.output'))) {
          if (input) accumulate(step, this.#cosines[layer], weightedMean(step, cosine(step, input, x), weights, 1))
          if (input && this.#batches === 0)
            squares.push(squaredError(step, x, step.filled(x.dtype, x.shape, 0, 'zero')))
          input = x
        }
        if (picks && this.#names.has(name)) take(step, name, x, picks)
      },
    })
    for (const square of squares) {
      const norms = (await step.read(square)).map(Math.sqrt)
      const { rows, positions } = outlierTokens(norms, batch.tokens)
      this.#outliers.push({ share: rows.length / norms.length, positions })
    }
    if (wantsRaw) {
      const best = await step.read(headArgmax(step, decoder.normed(step, hidden), decoder.headWeight))
      for (let r = 0; r < batch.rows && this.#raw.length < mostRawOutputs; r++) {
        const row = (values: Uint32Array) =>
          tokenizer.decode([...values.subarray(r * batch.tokens, r * batch.tokens + batch.used[r])])
        this.#raw.push({ input: row(batch.ids), predicted: row(best) })
      }
    }
    // One step at a time, or its memory piles up behind a slow GPU.
    await this.#gpu.finish()
    this.#batches++
    this.#counted += total
    this.#picked += indices.length
  }

  async facts(): Promise<CollectFacts> {
    const counters: Record<string, Record<string, number>> = {}
    for (const [name, pca] of this.#collectors) counters[name] = { ...pca.counters, dimension: pca.dimension }
    const cosines: number[] = []
    for (const cosine of this.#cosines) cosines.push((await this.#gpu.read(cosine))[0])
    return {
      ...{ batches: this.#batches, counted: this.#counted, picked: this.#picked, counters, cosines },
      ...{ outliers: this.#outliers, rawOutputs: this.#raw },
    }
  }

  async save(): Promise<void> {
    const parts = [...this.#collectors].map(
      ([name, pca]): SnapshotPart => ({ name, sizes: pca.sizes, read: () => pca.snapshot() }),
    )
    await writeSnapshots(this.#options.path, parts, await this.facts())
  }

  [Symbol.dispose](): void {
    for (const pca of this.#collectors.values()) pca[Symbol.dispose]()
    this.#scope[Symbol.dispose]()
  }
}
