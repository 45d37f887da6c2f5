import type { FloatType } from '../core/dtype.ts'
import type { ConstrainedText, Constraint } from '../grammar/constraint.ts'
import { noAdapter } from '../kernels/lora-batch.ts'
import { type Sampling, samplingSettings } from '../kernels/sampler.ts'
import { maskWords } from '../kernels/token-mask.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { AdapterStacks } from './adapter-stacks.ts'
import { notFinite } from './finite.ts'
import { KvPages } from './kv-pages.ts'
import {
  attendCached,
  type BatchKind,
  type CacheOfBatch,
  type RecordedBatch,
  recordBatch,
  serves,
} from './recorded-batch.ts'

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
  /** The adapter of this row; that of the whole run unless told. Rows of a batch may have different ones. */
  readonly updates?: LinearUpdates
  /** What the text must be; its row ends when it is. */
  readonly constraint?: Constraint
}

/** A token that was made. */
export interface MadeToken {
  readonly id: number
  /** Its log-probability at temperature 1, among the tokens that its constraint allows. */
  readonly logprob: number
  /** Whether it ends a text that its constraint says is whole. */
  readonly last?: boolean
}

/**
 * Steps that are under way before the host looks at the first: sampling never waits for it, except where the next mask
 * depends on the last token.
 */
const ahead = 3

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
  readonly #pages: KvPages
  readonly #cache: CacheOfBatch
  readonly #prefillTokens: number
  readonly #recorded: RecordedBatch[] = []

  constructor(model: Decoder, options: EngineOptions = {}) {
    const { config, gpu } = model
    const { pageSize = 64, prefillTokens = 128 } = options
    this.model = model
    this.contextLength = Math.min(options.contextLength ?? 4096, config.contextLength)
    this.#prefillTokens = prefillTokens
    const tablePages = Math.ceil(this.contextLength / pageSize)
    const dtype = options.cacheType ?? model.dtype
    const count = Math.max(tablePages, Math.ceil((options.tokens ?? 0) / pageSize))
    this.#pages = new KvPages(gpu, config, dtype, count, pageSize)
    this.#cache = { pages: this.#pages, dtype, contextLength: this.contextLength, tablePages }
  }

  /** Tokens that the cache can still take. */
  get freeTokens(): number {
    return this.#pages.free * this.#pages.pageSize
  }

  /**
   * Continues each row until every one has made its tokens, its text is whole, or the caller stops.
   * @param rows prompts and how to continue them; they advance together.
   * @param options.updates the adapter of the rows that name none. Where rows have different ones, the adapters are copied
   *   when such a batch first runs: what is changed in them afterwards is not seen.
   * @yields for each step the token of every row; undefined for rows that have all their tokens already.
   * @throws RangeError when a prompt is empty, or with its tokens passes the context, or the model gives NaN;
   *   ResourceError when the cache is full.
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
        each.pages = this.#pages.borrow(each.row.ids.length + each.row.maxTokens)
      }
      const texts = rows.map(({ constraint }) => constraint?.begin())
      batch = await this.#take({
        rows: rows.length,
        penalize: rows.some(({ repetitionPenalty = 1 }) => repetitionPenalty !== 1),
        masked: texts.some((text) => text),
        updates: rows.map((row) => row.updates ?? updates),
      })
      this.#fill(batch, borrowed, updates)
      for (const { row, pages } of borrowed) this.#prefill(batch, row, pages, row.updates ?? updates, signal)
      const left = rows.map(({ maxTokens }) => maxTokens)
      const most = Math.max(...left)
      const underWay: Promise<[Uint32Array, Float32Array]>[] = []
      for (let made = 0; made < most && left.some((count) => count > 0); made++) {
        while (underWay.length < Math.min(batch.mask ? 1 : ahead, most - made)) {
          this.#restrict(batch, texts)
          batch.recording.replay()
          const { gpu } = this.model
          const both = Promise.all([gpu.read(batch.chosen), gpu.read(batch.logprob)])
          // Those behind one that fails are never waited for.
          both.catch(() => {})
          underWay.push(both)
        }
        const [ids, logprobs] = await underWay.shift()!
        if (signal?.aborted) return
        yield rows.map((_, i) => {
          if (left[i] === 0) return undefined
          left[i]--
          const [id, logprob, text] = [ids[i], logprobs[i], texts[i]]
          if (!Number.isFinite(logprob)) throw notFinite(this.model, `generate token ${made + 1}`)
          if (!text) return { id, logprob }
          text.take(id)
          const last = text.isDone()
          if (last) left[i] = 0
          return { id, logprob, last }
        })
      }
    } finally {
      for (const { pages } of borrowed) this.#pages.giveBack(pages)
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
  async #take(kind: BatchKind): Promise<RecordedBatch> {
    const fits = this.#recorded.findIndex((batch) => serves(batch, this.model, kind))
    return fits >= 0 ? this.#recorded.splice(fits, 1)[0] : await recordBatch(this.model, this.#cache, kind)
  }

  /** Tells the next step which tokens each row may have. */
  #restrict({ mask }: RecordedBatch, texts: readonly (ConstrainedText | undefined)[]): void {
    if (!mask) return
    const words = maskWords(this.model.config.vocabularySize)
    const bits = new Uint32Array(mask.size).fill(0xffff_ffff)
    for (const [i, text] of texts.entries()) if (text && !text.isDone()) bits.set(text.mask(), i * words)
    this.model.gpu.write(mask, bits)
  }

  /** Forgets what was recorded with an adapter: call it before the adapter's memory is given back. */
  forget(updates: LinearUpdates): void {
    for (let i = this.#recorded.length - 1; i >= 0; i--) {
      const { shared, stacks } = this.#recorded[i]
      if (shared === updates || stacks?.adapters.includes(updates)) this.#recorded.splice(i, 1)[0][Symbol.dispose]()
    }
  }

  #keep(batch: RecordedBatch): void {
    this.#recorded.unshift(batch)
    for (const old of this.#recorded.splice(mostRecordings)) old[Symbol.dispose]()
  }

  #fill(
    { state, pageTable, adapterIds, stacks }: RecordedBatch,
    borrowed: readonly { row: RowOptions; pages: number[] }[],
    updates: LinearUpdates | undefined,
  ): void {
    const { gpu } = this.model
    const history = new Uint32Array(state.history.size)
    for (const [i, { row }] of borrowed.entries()) history.set(row.ids, i * this.contextLength)
    const rows = borrowed.map(({ row }) => row)
    gpu.write(
      pageTable,
      borrowed.flatMap(({ pages }) => this.#tableOf(pages)),
    )
    gpu.write(
      adapterIds,
      rows.map((row) => numberOf(stacks, row.updates ?? updates)),
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
    return Array.from({ length: this.#cache.tablePages }, (_, i) => pages[i] ?? pages[0])
  }

  /** Reads all tokens of a prompt but the last into the cache. */
  #prefill(
    { stacks }: RecordedBatch,
    { ids }: RowOptions,
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
        const table = step.upload('u32', [1, this.#cache.tablePages], this.#tableOf(pages), 'page table')
        this.model.hidden(step, step.upload('u32', [1, part.length], part), {
          ...(stacks
            ? { batchUpdates: { ids: step.upload('u32', [1], [numberOf(stacks, updates)]), stackFor: stacks.stackFor } }
            : { updates }),
          starts,
          attend: attendCached(step, this.#cache, starts, table),
        })
      })
    }
  }

  [Symbol.dispose](): void {
    for (const batch of this.#recorded.splice(0)) batch[Symbol.dispose]()
    this.#pages[Symbol.dispose]()
  }
}

/** The number of an adapter among those of a batch. */
function numberOf(stacks: AdapterStacks | undefined, updates: LinearUpdates | undefined): number {
  return (stacks && updates && stacks.adapters.indexOf(updates)) ?? noAdapter
}
