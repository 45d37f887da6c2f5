import { openBundle, openGpuRoot } from '#host'
import { Adapter } from '../adapters/adapter.ts'
import { pool, type Router, readRouter } from '../adapters/router.ts'
import type { Files } from '../bundle/files.ts'
import type { Manifest } from '../bundle/manifest.ts'
import { parseRuntimeConfig } from '../bundle/runtime-config.ts'
import type { BundleSource } from '../bundle/source.ts'
import { unpackBackbone } from '../bundle/storage.ts'
import { openVerified, type VerifyOptions, type VerifyReport } from '../bundle/verify.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import { type DecoderConfig, parseModelConfig } from '../formats/model-config.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { loadTokenizer, type Tokenizer } from '../formats/tokenizer.ts'
import { embedding } from '../kernels/embedding.ts'
import { Decoder } from '../models/decoder.ts'
import { Gpu } from '../runtime/gpu.ts'
import type { MemoryUse } from '../runtime/pool.ts'
import { AdapterShelf } from './adapter-shelf.ts'
import { Engine } from './engine.ts'
import { type Finish, generateText, type TextOptions } from './generate.ts'

/** What to answer. */
export interface PromptOptions extends Omit<TextOptions, 'updates'> {
  readonly prompt: string
  /** The adapter to use; the router chooses unless told. */
  readonly capability?: string
  /** Told which adapter answers, before the first piece comes. */
  readonly onChoice?: (choice: Choice) => void
}

/** How a bundle is loaded. */
export interface LoadOptions extends VerifyOptions {
  /** Loads the adapters that the bundle marks as restricted too; otherwise nothing of them reaches the GPU. */
  readonly enableRestricted?: boolean
  /** The GPU to use; one is opened for the model, and closed with it, unless given. */
  readonly gpu?: Gpu
  /** In a browser: whether fetched files are kept; true unless told. */
  readonly cache?: boolean
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

/** Which adapter answers, and who chose it. */
export interface Choice {
  readonly capability: string
  /** Whether the caller named the capability or the router chose it. */
  readonly chosenBy: 'caller' | 'router'
}

/** An answer and what gave it. */
export interface Answer extends Choice {
  readonly text: string
  readonly tokens: number
  readonly tokensPerSecond: number
  /** Why it ended: with a schema, an answer that ended by `length` is not whole. */
  readonly finish: Finish
}

/**
 * A bundle on the GPU, ready to answer: in Node, in a page, in a worker.
 *
 * @example
 * using model = await NexusModel.load('nexus_bundle_v1')
 * const { text } = await model.generate({ prompt: '+74+98=', capability: 'add' })
 */
export class NexusModel implements Disposable {
  readonly manifest: Manifest
  /** What was checked before anything was loaded. */
  readonly report: VerifyReport
  readonly gpu: Gpu
  readonly #ownsGpu: boolean
  readonly #decoder: Decoder
  readonly #engine: Engine
  readonly #adapters: AdapterShelf
  readonly #router: Router | undefined
  readonly #tokenizer: Tokenizer

  private constructor(parts: ModelParts, ownsGpu: boolean) {
    this.manifest = parts.manifest
    this.report = parts.report
    this.gpu = parts.decoder.gpu
    this.#ownsGpu = ownsGpu
    this.#decoder = parts.decoder
    this.#engine = new Engine(parts.decoder)
    this.#adapters = new AdapterShelf((adapter) => this.#engine.forget(adapter))
    for (const adapter of parts.adapters) this.#adapters.set(adapter)
    this.#router = parts.router
    this.#tokenizer = parts.tokenizer
  }

  /**
   * Verifies a bundle, then loads it.
   * @param source path of a folder or .zip in Node, their web address in a browser; see {@link BundleSource}.
   * @throws BundleError when the bundle is not as it was packed; then nothing reached the GPU. GpuError without a GPU.
   */
  static async load(source: BundleSource, options: LoadOptions = {}): Promise<NexusModel> {
    await using bundle = await openBundle(source, options)
    const { files, report } = await openVerified(bundle.files, options)
    options.signal?.throwIfAborted()
    const gpu = options.gpu ?? (await Gpu.open(await openGpuRoot()))
    try {
      return new NexusModel(await loadParts(gpu, report, files, options), gpu !== options.gpu)
    } catch (error) {
      if (gpu !== options.gpu) gpu[Symbol.dispose]()
      throw error
    }
  }

  /** Names of the capabilities that are loaded: those of the manifest in its order, then added ones. */
  get capabilities(): string[] {
    return this.#adapters.names
  }

  /** Shape of the backbone: what an adapter must fit. */
  get config(): DecoderConfig {
    return this.#decoder.config
  }

  /** The decoder that all adapters share, without any of them. It lives as long as the model. */
  get backbone(): Decoder {
    return this.#decoder
  }

  /** What turns prompts into ids. */
  get tokenizer(): Tokenizer {
    return this.#tokenizer
  }

  /** GPU memory in use now, at most so far, and kept for reuse. */
  get memory(): MemoryUse {
    return this.gpu.memory
  }

  /**
   * Adds an adapter, or puts it in the place of one of the same name; the backbone stays. Answers under way keep what
   * they began with. The router does not know added ones: name them.
   * @param bytes a safetensors file in PEFT's layout.
   * @param config the parsed adapter_config.json; without it the scale is 1, as in the adapters of a bundle.
   * @throws SyntaxError when it does not fit the backbone, RangeError for a name that the bundle keeps restricted.
   */
  setAdapter(name: string, bytes: Uint8Array<ArrayBuffer>, config?: unknown): void {
    if (this.#isClosed(name))
      throw new RangeError(`Cannot replace capability ${name}: it is restricted; load the bundle with enableRestricted`)
    const { tensors } = parseSafetensors(bytes)
    const adapter =
      config === undefined
        ? Adapter.load(this.gpu, name, this.#decoder.config, tensors)
        : Adapter.fromPeft(this.gpu, name, this.#decoder.config, config, tensors)
    this.#adapters.set(adapter)
  }

  /**
   * Removes an adapter; answers under way keep it until they end.
   * @throws RangeError when there is none of that name.
   */
  removeAdapter(name: string): void {
    if (!this.#adapters.remove(name)) throw this.#unknown(name)
  }

  /**
   * Continues a prompt.
   * @throws RangeError for an unknown or restricted capability, or a prompt that does not fit.
   */
  async generate(options: PromptOptions): Promise<Answer> {
    const pieces = this.stream(options)
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) return value
    }
  }

  /** The same, piece by piece as it is made; the generator's return value is the whole answer. */
  async *stream({ prompt, capability, onChoice, ...options }: PromptOptions): AsyncGenerator<string, Answer> {
    const started = performance.now()
    const { ids, adapter, giveBack, choice } = await this.#choose({ prompt, capability })
    try {
      onChoice?.(choice)
      let text = ''
      let tokens = 0
      let finish: Finish = 'stop'
      for await (const piece of generateText(this.#engine, this.#tokenizer, ids, { ...options, updates: adapter })) {
        text += piece.text
        tokens = piece.tokens
        finish = piece.finish ?? finish
        if (piece.text !== '') yield piece.text
      }
      const seconds = (performance.now() - started) / 1000
      return { text, ...choice, tokens, tokensPerSecond: tokens / seconds, finish }
    } finally {
      giveBack()
    }
  }

  /**
   * Logits of the token after a prompt, f32 (V): what {@link generate} chooses from.
   * @throws RangeError as generate does.
   */
  async logits(options: Pick<PromptOptions, 'prompt' | 'capability'>): Promise<Float32Array> {
    const { ids, adapter, giveBack } = await this.#choose(options)
    try {
      using step = this.gpu.step({ label: 'logits' })
      const hidden = this.#decoder.hidden(step, step.upload('u32', [1, ids.length], ids), { updates: adapter })
      const rows = step.reshape(hidden, [ids.length, this.#decoder.config.width])
      const last = embedding(step, rows, step.upload('u32', [1], [ids.length - 1]))
      return await step.read(this.#decoder.head(step, last))
    } finally {
      giveBack()
    }
  }

  async #choose({ prompt, capability }: Pick<PromptOptions, 'prompt' | 'capability'>) {
    const ids = [this.#decoder.config.eosId, ...this.#tokenizer.encode(prompt)]
    if (capability === undefined && !this.#router)
      throw new RangeError('Cannot choose a capability: all of the bundle are restricted; name one')
    const name = capability ?? this.#router!.choose(await pool(this.#decoder, ids)).capability
    const borrowed = this.#adapters.borrow(name)
    if (!borrowed) throw this.#unknown(name)
    const choice: Choice = { capability: name, chosenBy: capability === undefined ? 'router' : 'caller' }
    return { ids, ...borrowed, choice }
  }

  /** Whether the bundle has a restricted capability of this name and was loaded without. */
  #isClosed(name: string): boolean {
    return (this.manifest.capabilities[name]?.restricted ?? false) && !this.capabilities.includes(name)
  }

  #unknown(name: string): RangeError {
    return this.#isClosed(name)
      ? new RangeError(`Cannot use capability ${name}: it is restricted; load the bundle with enableRestricted`)
      : new RangeError(
          `Cannot use capability ${JSON.stringify(name)}: the bundle has ${this.capabilities.join(', ') || 'none'}`,
        )
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]()
    this.#adapters[Symbol.dispose]()
    this.#decoder[Symbol.dispose]()
    if (this.#ownsGpu) this.gpu[Symbol.dispose]()
  }
}

interface ModelParts {
  readonly manifest: Manifest
  readonly report: VerifyReport
  readonly decoder: Decoder
  readonly adapters: readonly Adapter[]
  readonly router: Router | undefined
  readonly tokenizer: Tokenizer
}

async function loadParts(gpu: Gpu, report: VerifyReport, files: Files, options: LoadOptions): Promise<ModelParts> {
  const manifest = report.manifest!
  const { onProgress = silent, signal, enableRestricted = false } = options
  const json = async (path: string) => JSON.parse(new TextDecoder().decode(await files.read(path))) as object
  const tensors = async (path: string) => parseSafetensors(await files.read(path)).tensors
  const wanted = Object.entries(manifest.capabilities).filter(([, { restricted }]) => !restricted || enableRestricted)
  const tell = (done: number) => onProgress({ task: 'load', done, total: wanted.length + 1, unit: 'parts' })
  const tokenizer = loadTokenizer(await json('tokenizer/tokenizer.json'))
  const config = parseModelConfig(await json('backbone/config.json'))
  const routing = await tensors('router/router.safetensors')
  const { kind, capabilities } = parseRuntimeConfig(await files.read('config/runtime.yaml')).router
  tell(0)
  const backbone = unpackBackbone(await tensors('backbone/backbone.safetensors'))
  const { storage } = manifest.model_metadata
  const decoder = Decoder.load(gpu, config, backbone, storage === 'f16' ? 'f32' : storage)
  const adapters: Adapter[] = []
  try {
    for (const [name, { adapter }] of wanted) {
      tell(1 + adapters.length)
      signal?.throwIfAborted()
      adapters.push(Adapter.load(gpu, name, config, await tensors(adapter)))
    }
  } catch (error) {
    for (const loaded of [...adapters, decoder]) loaded[Symbol.dispose]()
    throw error
  }
  tell(1 + adapters.length)
  // A restricted adapter is named by its caller or not used: the router does not know it.
  const open = capabilities.filter((name) => !manifest.capabilities[name].restricted)
  const router = readRouter(kind, routing, capabilities, open)
  return { manifest, report, decoder, adapters, router, tokenizer }
}
