import type { FloatType } from '../core/dtype.ts'
import { attentionDecode, kvAppend } from '../kernels/attention-decode.ts'
import { cast } from '../kernels/copy.ts'
import {
  advanceTokens,
  chooseTokens,
  type Sampling,
  samplingSettings,
  settingsWidth,
  type TokenState,
} from '../kernels/sampler.ts'
import type { Attend, Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Recording } from '../runtime/recording.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { KvPages } from './kv-pages.ts'

/** How an {@link Engine} is made. */
export interface EngineOptions {
  /** Tokens of all sequences together that the cache can hold; one full context unless told. */
  readonly tokens?: number
  /** Most tokens of one sequence; the model's context, or 4,096 if that is less, unless told. */
  readonly contextLength?: number
  /** Of the cache; that of the model's activations unless told. f16 halves its memory. */
  readonly cacheType?: FloatType
  /** Tokens of a page; 64 unless told. */
  readonly pageSize?: number
  /** Tokens of a prompt that are read at once; 128 unless told. */
  readonly prefillTokens?: number
}

/** What the rows of a batch are to do. */
export interface RowOptions extends Sampling {
  /** The prompt: one id or more. */
  readonly ids: readonly number[]
  /** Most tokens to make. */
  readonly maxTokens: number
  /** Seed of the draws; 42 unless told. */
  readonly seed?: number
}

/** A token that was made. */
export interface MadeToken {
  readonly id: number
  /** Its log-probability at temperature 1. */
  readonly logprob: number
}

/** Steps that are under way before the host looks at the first: sampling never waits for it. */
const ahead = 3

/** Updates and penalties are part of what is recorded; everything else lies in tensors. */
interface RecordedBatch {
  readonly rows: number
  readonly penalize: boolean
  readonly updates: LinearUpdates | undefined
  readonly scope: Scope
  readonly state: TokenState
  readonly pageTable: Tensor<'u32'>
  readonly chosen: Tensor<'u32'>
  readonly logprob: Tensor<'f32'>
  readonly recording: Recording
}

/** Recorded batches that are kept for the next sequences of their kind. */
const mostRecordings = 4

/**
 * Makes tokens with a model: a paged cache of keys and values, prompts read in chunks, and one recorded step a token,
 * which the GPU replays without waiting for the host. Batches of the same kind use the same recording.
 *
 * @example
 * using engine = new Engine(model)
 * for await (const [token] of engine.run([{ ids: [1, 2, 3], maxTokens: 10 }])) console.log(token?.id)
 */
export class Engine implements Disposable {
  readonly model: Decoder
  readonly contextLength: number
  readonly #cache: KvPages
  readonly #cacheType: FloatType
  readonly #prefillTokens: number
  readonly #tablePages: number
  readonly #recorded: RecordedBatch[] = []

  constructor(model: Decoder, options: EngineOptions = {}) {
    const { config, gpu } = model
    const { pageSize = 64, prefillTokens = 128 } = options
    this.model = model
    this.contextLength = Math.min(options.contextLength ?? 4096, config.contextLength)
    this.#cacheType = options.cacheType ?? model.dtype
    this.#prefillTokens = prefillTokens
    this.#tablePages = Math.ceil(this.contextLength / pageSize)
    const pages = Math.max(this.#tablePages, Math.ceil((options.tokens ?? 0) / pageSize))
    this.#cache = new KvPages(gpu, config, this.#cacheType, pages, pageSize)
  }

  /** Tokens that the cache can still take. */
  get freeTokens(): number {
    return this.#cache.free * this.#cache.pageSize
  }

  /**
   * Continues each row until every one has made its tokens or the caller stops.
   * @param rows prompts and how to continue them; they advance together.
   * @param updates adapters of the model, for all rows.
   * @yields for each step the token of every row; undefined for rows that have all their tokens already.
   * @throws RangeError when a prompt is empty, or with its tokens passes the context; ResourceError when the cache is full.
   */
  async *run(
    rows: readonly RowOptions[],
    { updates, signal }: { updates?: LinearUpdates; signal?: AbortSignal } = {},
  ): AsyncGenerator<(MadeToken | undefined)[]> {
    const borrowed = rows.map((row) => ({ row, pages: [] as number[] }))
    let batch: RecordedBatch | undefined
    try {
      for (const each of borrowed) {
        this.#check(each.row)
        each.pages = this.#cache.borrow(each.row.ids.length + each.row.maxTokens)
      }
      const penalize = rows.some(({ repetitionPenalty = 1 }) => repetitionPenalty !== 1)
      batch = this.#take(rows.length, penalize, updates)
      this.#fill(batch, borrowed)
      for (const { row, pages } of borrowed) this.#prefill(row.ids, pages, updates, signal)
      const most = Math.max(...rows.map(({ maxTokens }) => maxTokens))
      const underWay: Promise<[Uint32Array, Float32Array]>[] = []
      for (let made = 0; made < most; made++) {
        while (underWay.length < Math.min(ahead, most - made)) {
          batch.recording.replay()
          const { gpu } = this.model
          const both = Promise.all([gpu.read(batch.chosen), gpu.read(batch.logprob)])
          // Those behind one that fails are never waited for.
          both.catch(() => {})
          underWay.push(both)
        }
        const [ids, logprobs] = await underWay.shift()!
        if (signal?.aborted) return
        yield rows.map(({ maxTokens }, i) => (made < maxTokens ? { id: ids[i], logprob: logprobs[i] } : undefined))
      }
    } finally {
      for (const { pages } of borrowed) this.#cache.giveBack(pages)
      if (batch) this.#keep(batch)
    }
  }

  #check({ ids, maxTokens }: RowOptions): void {
    if (ids.length === 0) throw new RangeError('Cannot generate from an empty prompt')
    if (ids.length + maxTokens > this.contextLength)
      throw new RangeError(
        `Cannot generate ${maxTokens} tokens after a prompt of ${ids.length}: the context is ${this.contextLength}. ` +
          'Shorten one of them.',
      )
  }

  /** A recording for such a batch: one that is kept, or a new one. */
  #take(rows: number, penalize: boolean, updates: LinearUpdates | undefined): RecordedBatch {
    const fits = this.#recorded.findIndex(
      (batch) => batch.rows === rows && batch.penalize === penalize && batch.updates === updates,
    )
    if (fits >= 0) return this.#recorded.splice(fits, 1)[0]
    const { gpu } = this.model
    const scope = gpu.scope('batch')
    const state: TokenState = {
      ids: scope.filled('u32', [rows, 1], 0, 'ids'),
      position: scope.filled('u32', [rows], 0, 'position'),
      history: scope.filled('u32', [rows, this.contextLength], 0, 'history'),
      settings: scope.filled('f32', [rows, settingsWidth], 0, 'settings'),
      seeds: scope.filled('u32', [rows], 0, 'seeds'),
    }
    const pageTable = scope.filled('u32', [rows, this.#tablePages], 0, 'page table')
    const kept: { chosen?: Tensor<'u32'>; logprob?: Tensor<'f32'> } = {}
    const recording = gpu.record((step) => {
      step.withoutGradients(() => {
        const hidden = this.model.hidden(step, state.ids, {
          updates,
          starts: state.position,
          attend: this.#attend(step, state.position, pageTable),
        })
        const logits = this.model.head(step, hidden)
        const flat = step.reshape(logits, [rows, logits.shape.at(-1)!])
        Object.assign(kept, chooseTokens(step, flat, state, { penalize }))
        advanceTokens(step, state, kept.chosen!)
      })
    })
    return { rows, penalize, updates, scope, state, pageTable, recording, chosen: kept.chosen!, logprob: kept.logprob! }
  }

  /** Forgets what was recorded with an adapter: call it before the adapter's memory is given back. */
  forget(updates: LinearUpdates): void {
    for (let i = this.#recorded.length - 1; i >= 0; i--)
      if (this.#recorded[i].updates === updates) disposeOf(this.#recorded.splice(i, 1)[0])
  }

  #keep(batch: RecordedBatch): void {
    this.#recorded.unshift(batch)
    for (const old of this.#recorded.splice(mostRecordings)) disposeOf(old)
  }

  #fill({ state, pageTable }: RecordedBatch, borrowed: readonly { row: RowOptions; pages: number[] }[]): void {
    const { gpu } = this.model
    const history = new Uint32Array(state.history.size)
    for (const [i, { row }] of borrowed.entries()) history.set(row.ids, i * this.contextLength)
    const rows = borrowed.map(({ row }) => row)
    gpu.write(
      pageTable,
      borrowed.flatMap(({ pages }) => this.#tableOf(pages)),
    )
    gpu.write(state.history, history)
    gpu.write(state.settings, rows.flatMap(samplingSettings))
    gpu.write(
      state.seeds,
      rows.map(({ seed = 42 }) => seed >>> 0),
    )
    // The last token of a prompt is read by the first recorded step.
    gpu.write(
      state.ids,
      rows.map(({ ids }) => ids.at(-1)!),
    )
    gpu.write(
      state.position,
      rows.map(({ ids }) => ids.length - 1),
    )
  }

  /** A row of a page table. What no page was borrowed for is not read; it shows the first page, which is the row's own. */
  #tableOf(pages: readonly number[]): number[] {
    return Array.from({ length: this.#tablePages }, (_, i) => pages[i] ?? pages[0])
  }

  /** Reads all tokens of a prompt but the last into the cache. */
  #prefill(
    ids: readonly number[],
    pages: readonly number[],
    updates: LinearUpdates | undefined,
    signal?: AbortSignal,
  ): void {
    for (let begin = 0; begin < ids.length - 1; begin += this.#prefillTokens) {
      if (signal?.aborted) return
      const part = ids.slice(begin, Math.min(begin + this.#prefillTokens, ids.length - 1))
      using step = this.model.gpu.step({ label: 'prefill' })
      step.withoutGradients(() => {
        const starts = step.upload('u32', [1], [begin], 'starts')
        const table = step.upload('u32', [1, this.#tablePages], this.#tableOf(pages), 'page table')
        this.model.hidden(step, step.upload('u32', [1, part.length], part), {
          updates,
          starts,
          attend: this.#attend(step, starts, table),
        })
      })
    }
  }

  /** Attention to the cache, after the new keys and values were added to it. */
  #attend(step: Step, position: Tensor<'u32'>, pageTable: Tensor<'u32'>): Attend {
    return (layer, q, k, v, options) => {
      const { k: keys, v: values } = this.#cache.layers[layer]
      const cache = { k: keys, v: values, pageTable, position }
      kvAppend(step, cache, cast(step, k, this.#cacheType), cast(step, v, this.#cacheType))
      return cast(step, attentionDecode(step, cast(step, q, this.#cacheType), cache, options), q.dtype)
    }
  }

  [Symbol.dispose](): void {
    for (const batch of this.#recorded.splice(0)) disposeOf(batch)
    this.#cache[Symbol.dispose]()
  }
}

function disposeOf({ recording, scope }: RecordedBatch): void {
  recording[Symbol.dispose]()
  scope[Symbol.dispose]()
}
