import type { Files } from '../bundle/files.ts'
import type { Manifest } from '../bundle/manifest.ts'
import type { BundleSource } from '../bundle/source.ts'
import type { VerifyReport } from '../bundle/verify.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import type { DecoderConfig } from '../formats/model-config.ts'
import type { Answer, Choice, PromptOptions } from '../inference/nexus-model.ts'
import type { MemoryUse } from '../runtime/pool.ts'
import { portable } from './local-files.ts'
import { type FromWorker, fromSent, type Request, type Result, type ToWorker } from './protocol.ts'
import type { ModelFacts } from './session.ts'

/** How a bundle is loaded into a worker. */
export interface BrowserLoadOptions {
  /** Loads the adapters that the bundle marks as restricted too. */
  readonly enableRestricted?: boolean
  /** PEM text of the public key that must have signed the bundle. */
  readonly publicKey?: string
  /** Whether fetched files are kept in the browser (OPFS); true unless told. */
  readonly cache?: boolean
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
  /** Told when the GPU device was lost; the model is loaded again by itself. */
  readonly onLost?: (reason: string) => void
  /** Makes the worker, where its script is not `worker.js` beside the page's own. */
  readonly worker?: () => Worker
}

/** What to answer, from a page: all of {@link PromptOptions}. */
export type BrowserPrompt = PromptOptions

interface Pending {
  readonly resolve: (result: Result) => void
  readonly reject: (error: Error) => void
  readonly onProgress: OnProgress
  readonly onChoice: (choice: Choice) => void
  readonly onPiece: (piece: string) => void
  readonly onNote: (note: unknown) => void
}

/**
 * A bundle in a Web Worker: the page stays free while it answers. Requests are answered one after the other.
 *
 * @example
 * const model = await BrowserModel.load('/nexus_bundle_v1/', { onProgress: ({ done, total }) => show(done / total) })
 * for await (const piece of model.stream({ prompt: '+74+98=' })) write(piece)
 * model.close()
 */
export class BrowserModel implements Disposable {
  readonly #worker: Worker
  readonly #onLost: (reason: string) => void
  readonly #pending = new Map<number, Pending>()
  #facts!: ModelFacts
  #ids = 0
  #closed: Error | undefined

  private constructor(worker: Worker, onLost: (reason: string) => void) {
    this.#worker = worker
    this.#onLost = onLost
    worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => this.#receive(data))
    worker.addEventListener('error', (event) => {
      event.preventDefault?.()
      this.#end(new Error(`The model's worker failed: ${event.message || 'its script could not be loaded'}`))
    })
  }

  /**
   * Starts a worker and loads a bundle in it.
   * @throws NetworkError, BundleError, NoWebGpuError with what to do; AbortError when the signal ends it.
   */
  static async load(source: Exclude<BundleSource, Files>, options: BrowserLoadOptions = {}): Promise<BrowserModel> {
    const { onLost = () => {}, onProgress, signal, enableRestricted, cache, publicKey } = options
    const start =
      options.worker ?? (() => new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'nexus' }))
    signal?.throwIfAborted()
    const model = new BrowserModel(start(), onLost)
    try {
      const request: Request = {
        kind: 'load',
        source: portable(source),
        publicKey,
        options: { enableRestricted, cache },
      }
      model.#facts = (await model.#ask(request, { onProgress, signal })).facts!
      return model
    } catch (error) {
      model.close()
      throw error
    }
  }

  /** What the bundle says of itself. */
  get manifest(): Manifest {
    return this.#facts.manifest
  }

  /** What was checked before anything was loaded. */
  get report(): VerifyReport {
    return this.#facts.report
  }

  /** Names of the capabilities that are loaded, added ones last. */
  get capabilities(): readonly string[] {
    return this.#facts.capabilities
  }

  /** Shape of the backbone: what an adapter must fit. */
  get config(): DecoderConfig {
    return this.#facts.config
  }

  /** The adapter (of WebGPU) that it runs on. */
  get gpu(): ModelFacts['gpu'] {
    return this.#facts.gpu
  }

  /** GPU memory of the model: in use now, at most so far, kept for reuse. */
  async memory(): Promise<MemoryUse> {
    return (await this.#ask({ kind: 'memory' })).memory!
  }

  /**
   * Adds an adapter or replaces one, without loading the backbone again.
   * @param bytes a safetensors file in PEFT's layout.
   * @param config the parsed adapter_config.json; without it the scale is 1.
   * @throws SyntaxError when it does not fit the backbone.
   */
  async setAdapter(name: string, bytes: Uint8Array<ArrayBuffer>, config?: unknown): Promise<void> {
    this.#facts = (await this.#ask({ kind: 'setAdapter', name, bytes, config })).facts!
  }

  /** Removes an adapter. @throws RangeError when there is none of that name. */
  async removeAdapter(name: string): Promise<void> {
    this.#facts = (await this.#ask({ kind: 'removeAdapter', name })).facts!
  }

  /** Continues a prompt. @throws RangeError for an unknown or restricted capability, or a prompt that does not fit. */
  async generate({ signal, onChoice, ...prompt }: BrowserPrompt): Promise<Answer> {
    return (await this.#ask({ kind: 'stream', prompt }, { signal, onChoice })).answer!
  }

  /**
   * The same, piece by piece; the generator's return value is the whole answer. Leaving the loop, or the signal, stops the
   * work in the worker.
   */
  async *stream({ signal, onChoice, ...prompt }: BrowserPrompt): AsyncGenerator<string, Answer> {
    const pieces: string[] = []
    const left = new AbortController()
    let wake = () => {}
    let answer: Answer | undefined
    let fault: unknown
    const onPiece = (piece: string) => {
      pieces.push(piece)
      wake()
    }
    const both = signal ? AbortSignal.any([signal, left.signal]) : left.signal
    const asked = this.#ask({ kind: 'stream', prompt }, { signal: both, onChoice, onPiece }).then(
      (result) => {
        answer = result.answer
        wake()
      },
      (error: unknown) => {
        fault = error
        wake()
      },
    )
    try {
      for (;;) {
        while (pieces.length > 0) yield pieces.shift()!
        if (fault !== undefined) throw fault
        if (answer) return answer
        await new Promise<void>((resolve) => {
          wake = resolve
          if (pieces.length > 0 || answer || fault !== undefined) resolve()
        })
      }
    } finally {
      left.abort()
      await asked
    }
  }

  /**
   * Asks for something that the worker can do beside answering (see {@link serve}).
   * @returns what it gives, cloned.
   */
  async extra(
    name: string,
    argument: unknown,
    { signal, onNote }: { signal?: AbortSignal; onNote?: (note: unknown) => void } = {},
  ): Promise<unknown> {
    const { facts, value } = await this.#ask({ kind: 'extra', name, argument }, { signal, onNote })
    this.#facts = facts!
    return value
  }

  /** Destroys the worker's device, as a crashing driver does: for tests of what comes after. */
  async loseDevice(): Promise<void> {
    await this.#ask({ kind: 'loseDevice' })
  }

  /** Ends the worker and gives all its memory back; what is being answered is rejected. */
  close(): void {
    this.#end(new DOMException('The model was closed', 'AbortError'))
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #ask(
    request: Request,
    { signal, onProgress = silent, onChoice = () => {}, onPiece = () => {}, onNote = () => {} }: Partial<Asking> = {},
  ): Promise<Result> {
    if (this.#closed) return Promise.reject(this.#closed)
    if (signal?.aborted) return Promise.reject(signal.reason as Error)
    const id = this.#ids++
    const cancel = () => this.#send({ cancel: id })
    signal?.addEventListener('abort', cancel)
    return new Promise<Result>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress, onChoice, onPiece, onNote })
      this.#send({ id, request })
    }).finally(() => signal?.removeEventListener('abort', cancel))
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message)
  }

  #receive(message: FromWorker): void {
    if ('lost' in message) {
      this.#onLost(message.lost)
      return
    }
    const pending = this.#pending.get(message.id)
    if (!pending) return
    if ('progress' in message) pending.onProgress(message.progress)
    else if ('choice' in message) pending.onChoice(message.choice)
    else if ('piece' in message) pending.onPiece(message.piece)
    else if ('note' in message) pending.onNote(message.note)
    else {
      this.#pending.delete(message.id)
      if ('error' in message) pending.reject(fromSent(message.error))
      else pending.resolve(message.result)
    }
  }

  #end(reason: Error): void {
    this.#closed ??= reason
    this.#worker.terminate()
    for (const { reject } of this.#pending.values()) reject(reason)
    this.#pending.clear()
  }
}

interface Asking extends Pick<Pending, 'onProgress' | 'onChoice' | 'onPiece' | 'onNote'> {
  readonly signal: AbortSignal
}
