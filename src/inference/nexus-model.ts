import { Adapter } from '../adapters/adapter.ts'
import { PrototypeRouter, pool } from '../adapters/router.ts'
import type { Files } from '../bundle/files.ts'
import type { Manifest } from '../bundle/manifest.ts'
import { parseRuntimeConfig } from '../bundle/runtime-config.ts'
import { unpackBackbone } from '../bundle/storage.ts'
import { openVerified, type VerifyOptions } from '../bundle/verify.ts'
import { parseModelConfig } from '../formats/model-config.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { toFloat32 } from '../formats/tensor.ts'
import { loadTokenizer, type Tokenizer } from '../formats/tokenizer.ts'
import { embedding } from '../kernels/embedding.ts'
import { Decoder } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { Engine } from './engine.ts'
import { type Finish, generateText, type TextOptions } from './generate.ts'

/** What to answer. */
export interface PromptOptions extends Omit<TextOptions, 'updates'> {
  readonly prompt: string
  /** The adapter to use; the router chooses unless told. */
  readonly capability?: string
}

/** How a bundle is loaded. */
export interface LoadOptions extends VerifyOptions {
  /** Loads the adapters that the bundle marks as restricted too; otherwise nothing of them reaches the GPU. */
  readonly enableRestricted?: boolean
}

/** An answer and what gave it. */
export interface Answer {
  readonly text: string
  readonly capability: string
  /** Whether the caller named the capability or the router chose it. */
  readonly chosenBy: 'caller' | 'router'
  readonly tokens: number
  readonly tokensPerSecond: number
  /** Why it ended: with a schema, an answer that ended by `length` is not whole. */
  readonly finish: Finish
}

/**
 * A bundle on the GPU, ready to answer.
 *
 * @example
 * using model = await NexusModel.load(gpu, new FolderFiles('nexus_bundle_v1'))
 * const { text } = await model.generate({ prompt: '+74+98=', capability: 'add' })
 */
export class NexusModel implements Disposable {
  readonly manifest: Manifest
  readonly #decoder: Decoder
  readonly #engine: Engine
  readonly #adapters: ReadonlyMap<string, Adapter>
  readonly #router: PrototypeRouter | undefined
  readonly #tokenizer: Tokenizer

  private constructor(
    manifest: Manifest,
    decoder: Decoder,
    adapters: ReadonlyMap<string, Adapter>,
    router: PrototypeRouter | undefined,
    tokenizer: Tokenizer,
  ) {
    this.manifest = manifest
    this.#decoder = decoder
    this.#engine = new Engine(decoder)
    this.#adapters = adapters
    this.#router = router
    this.#tokenizer = tokenizer
  }

  /**
   * Verifies a bundle, then loads it.
   * @throws BundleError when the bundle is not as it was packed; then nothing reached the GPU.
   */
  static async load(gpu: Gpu, source: Files, options: LoadOptions = {}): Promise<NexusModel> {
    const { manifest, files } = await openVerified(source, options)
    const json = async (path: string) => JSON.parse(new TextDecoder().decode(await files.read(path))) as object
    const tensors = async (path: string) => parseSafetensors(await files.read(path)).tensors
    const config = parseModelConfig(await json('backbone/config.json'))
    const backbone = unpackBackbone(await tensors('backbone/backbone.safetensors'))
    const { storage } = manifest.model_metadata
    const decoder = Decoder.load(gpu, config, backbone, storage === 'f16' ? 'f32' : storage)
    const adapters = new Map<string, Adapter>()
    for (const [name, { adapter, restricted }] of Object.entries(manifest.capabilities))
      if (!restricted || options.enableRestricted)
        adapters.set(name, Adapter.load(gpu, name, config, await tensors(adapter)))
    const prototypes = toFloat32((await tensors('router/router.safetensors')).get('prototypes')!)
    const { capabilities } = parseRuntimeConfig(await files.read('config/runtime.yaml')).router
    // A restricted adapter is named by its caller or not used: the router does not know it.
    const routed = capabilities
      .map((name, i) => ({ name, row: prototypes.subarray(i * config.width, (i + 1) * config.width) }))
      .filter(({ name }) => !manifest.capabilities[name].restricted)
    const router = routed.length === 0 ? undefined : makeRouter(routed)
    return new NexusModel(manifest, decoder, adapters, router, loadTokenizer(await json('tokenizer/tokenizer.json')))
  }

  /** Names of the capabilities that are loaded, in the order of the manifest. */
  get capabilities(): string[] {
    return [...this.#adapters.keys()]
  }

  /**
   * Continues a prompt.
   * @throws RangeError for an unknown or restricted capability, or a prompt that does not fit.
   */
  async generate(options: PromptOptions): Promise<Answer> {
    const started = performance.now()
    const { stream, capability, chosenBy } = await this.#begin(options)
    let text = ''
    let tokens = 0
    let finish: Finish = 'stop'
    for await (const piece of stream) {
      text += piece.text
      tokens = piece.tokens
      finish = piece.finish ?? finish
    }
    const seconds = (performance.now() - started) / 1000
    return { text, capability, chosenBy, tokens, tokensPerSecond: tokens / seconds, finish }
  }

  /** The same, piece by piece as it is made. */
  async *stream(options: PromptOptions): AsyncGenerator<string> {
    const { stream } = await this.#begin(options)
    for await (const { text } of stream) if (text !== '') yield text
  }

  /**
   * Logits of the token after a prompt, f32 (V): what {@link generate} chooses from.
   * @throws RangeError as generate does.
   */
  async logits(options: Pick<PromptOptions, 'prompt' | 'capability'>): Promise<Float32Array> {
    const { ids, adapter } = await this.#choose(options)
    using step = this.#decoder.gpu.step({ label: 'logits' })
    const hidden = this.#decoder.hidden(step, step.upload('u32', [1, ids.length], ids), { updates: adapter })
    const rows = step.reshape(hidden, [ids.length, this.#decoder.config.width])
    const last = embedding(step, rows, step.upload('u32', [1], [ids.length - 1]))
    return await step.read(this.#decoder.head(step, last))
  }

  async #begin({ prompt, capability, ...options }: PromptOptions) {
    const { ids, adapter, name, chosenBy } = await this.#choose({ prompt, capability })
    const stream = generateText(this.#engine, this.#tokenizer, ids, { ...options, updates: adapter })
    return { stream, capability: name, chosenBy }
  }

  async #choose({ prompt, capability }: Pick<PromptOptions, 'prompt' | 'capability'>) {
    const ids = [this.#decoder.config.eosId, ...this.#tokenizer.encode(prompt)]
    const chosenBy = capability === undefined ? ('router' as const) : ('caller' as const)
    if (capability === undefined && !this.#router)
      throw new RangeError('Cannot choose a capability: all of the bundle are restricted; name one')
    const name = capability ?? this.#router!.choose(await pool(this.#decoder, ids)).capability
    const adapter = this.#adapters.get(name)
    if (!adapter && this.manifest.capabilities[name]?.restricted)
      throw new RangeError(`Cannot use capability ${name}: it is restricted; load the bundle with enableRestricted`)
    if (!adapter)
      throw new RangeError(
        `Cannot use capability ${JSON.stringify(name)}: the bundle has ${this.capabilities.join(', ')}`,
      )
    return { ids, adapter, name, chosenBy }
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]()
    for (const adapter of this.#adapters.values()) adapter[Symbol.dispose]()
    this.#decoder[Symbol.dispose]()
  }
}

function makeRouter(routed: readonly { name: string; row: Float32Array }[]): PrototypeRouter {
  return new PrototypeRouter(
    routed.map(({ name }) => name),
    routed.map(({ row }) => row),
  )
}
