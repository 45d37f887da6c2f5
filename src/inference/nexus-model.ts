import { Adapter } from '../adapters/adapter.ts'
import { PrototypeRouter, pool } from '../adapters/router.ts'
import type { Files } from '../bundle/files.ts'
import { type Manifest, parseManifest } from '../bundle/manifest.ts'
import { assertVerified } from '../bundle/verify.ts'
import { parseModelConfig } from '../formats/model-config.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { toFloat32 } from '../formats/tensor.ts'
import { loadTokenizer, type Tokenizer } from '../formats/tokenizer.ts'
import { Decoder } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { Engine } from './engine.ts'
import { type GenerateOptions, generateText } from './generate.ts'

/** What to answer. */
export interface PromptOptions extends Omit<GenerateOptions, 'updates'> {
  readonly prompt: string
  /** Strings that end the answer; they are not part of it. */
  readonly stop?: readonly string[]
  /** The adapter to use; the router chooses unless told. */
  readonly capability?: string
  /** Allows adapters that the bundle marks as restricted. */
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
  readonly #router: PrototypeRouter
  readonly #tokenizer: Tokenizer

  private constructor(
    manifest: Manifest,
    decoder: Decoder,
    adapters: ReadonlyMap<string, Adapter>,
    router: PrototypeRouter,
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
  static async load(gpu: Gpu, files: Files): Promise<NexusModel> {
    await assertVerified(files)
    const manifest = parseManifest(await files.read('manifest.json'))
    const json = async (path: string) => JSON.parse(new TextDecoder().decode(await files.read(path))) as object
    const tensors = async (path: string) => parseSafetensors(await files.read(path)).tensors
    const config = parseModelConfig(await json('backbone/config.json'))
    const decoder = Decoder.load(gpu, config, await tensors('backbone/backbone.safetensors'))
    const adapters = new Map<string, Adapter>()
    for (const [name, { adapter }] of Object.entries(manifest.capabilities))
      adapters.set(name, Adapter.load(gpu, name, config, await tensors(adapter)))
    const names = (await json('config/runtime.json')) as { router: { capabilities: string[] } }
    const prototypes = toFloat32((await tensors('router/router.safetensors')).get('prototypes')!)
    const rows = names.router.capabilities.map((_, i) => prototypes.subarray(i * config.width, (i + 1) * config.width))
    const router = new PrototypeRouter(names.router.capabilities, rows)
    return new NexusModel(manifest, decoder, adapters, router, loadTokenizer(await json('tokenizer/tokenizer.json')))
  }

  /** Names of the capabilities, in the order of the manifest. */
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
    for await (const piece of stream) {
      text += piece.text
      tokens = piece.tokens
    }
    const seconds = (performance.now() - started) / 1000
    return { text, capability, chosenBy, tokens, tokensPerSecond: tokens / seconds }
  }

  /** The same, piece by piece as it is made. */
  async *stream(options: PromptOptions): AsyncGenerator<string> {
    const { stream } = await this.#begin(options)
    for await (const { text } of stream) yield text
  }

  async #begin({ prompt, capability, enableRestricted = false, ...options }: PromptOptions) {
    const ids = [this.#decoder.config.eosId, ...this.#tokenizer.encode(prompt)]
    const chosenBy = capability === undefined ? ('router' as const) : ('caller' as const)
    const name = capability ?? this.#router.choose(await pool(this.#decoder, ids)).capability
    const adapter = this.#adapters.get(name)
    if (!adapter)
      throw new RangeError(
        `Cannot use capability ${JSON.stringify(name)}: the bundle has ${this.capabilities.join(', ')}`,
      )
    if (this.manifest.capabilities[name].restricted && !(enableRestricted && capability !== undefined))
      throw new RangeError(`Cannot use capability ${name}: it is restricted; name it and set enableRestricted`)
    const stream = generateText(this.#engine, this.#tokenizer, ids, { ...options, updates: adapter })
    return { stream, capability: name, chosenBy }
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]()
    for (const adapter of this.#adapters.values()) adapter[Symbol.dispose]()
    this.#decoder[Symbol.dispose]()
  }
}
