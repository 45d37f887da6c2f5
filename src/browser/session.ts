import type { Key } from '../bundle/keys.ts'
import type { Manifest } from '../bundle/manifest.ts'
import type { BundleSource } from '../bundle/source.ts'
import type { VerifyReport } from '../bundle/verify.ts'
import { BundleError, DeviceLostError, messageOf } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { DecoderConfig } from '../formats/model-config.ts'
import { type Answer, NexusModel, type PromptOptions } from '../inference/nexus-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { MemoryUse } from '../runtime/pool.ts'

/** How a {@link ModelSession} is begun. */
export interface SessionOptions {
  /** The public key that must have signed the bundle. */
  readonly key?: Key
  readonly enableRestricted?: boolean
  /** Whether fetched files are kept in the browser (OPFS); true unless told. */
  readonly cache?: boolean
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
  /** Told when the device was lost, with the reason, before the model is loaded again. */
  readonly onLost?: (reason: string) => void
  /** How a GPU is found: called again whenever the device was lost. */
  readonly openGpu: () => Promise<Gpu>
}

/** What a page may know of a loaded model. */
export interface ModelFacts {
  readonly manifest: Manifest
  readonly report: VerifyReport
  readonly capabilities: readonly string[]
  readonly config: DecoderConfig
  readonly gpu: { readonly name: string; readonly software: boolean }
}

interface AddedAdapter {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly config: unknown
}

/**
 * A model that outlives its GPU device: when that is lost, the bundle is loaded again from where it came (the cache), the
 * added adapters are put back, and what was being answered goes on. Requests are answered one after the other.
 */
export class ModelSession {
  readonly #source: BundleSource
  readonly #options: SessionOptions
  readonly #changes = new Map<string, AddedAdapter | undefined>()
  #model: NexusModel
  #lost = false
  #last: Promise<unknown> = Promise.resolve()

  private constructor(source: BundleSource, options: SessionOptions, model: NexusModel) {
    this.#source = source
    this.#options = options
    this.#model = model
    this.#watch()
  }

  /** Loads a bundle. @throws what {@link NexusModel.load} throws. */
  static async load(source: BundleSource, options: SessionOptions): Promise<ModelSession> {
    return new ModelSession(source, options, await loadModel(source, options))
  }

  get facts(): ModelFacts {
    const { manifest, report, capabilities, config, gpu } = this.#model
    return { manifest, report, capabilities, config, gpu: { name: gpu.name, software: gpu.software } }
  }

  get memory(): MemoryUse {
    return this.#model.memory
  }

  /** See {@link NexusModel.setAdapter}. */
  async setAdapter(name: string, bytes: Uint8Array<ArrayBuffer>, config?: unknown): Promise<void> {
    const release = await this.#turn()
    try {
      await this.#ready()
      this.#model.setAdapter(name, bytes, config)
      this.#changes.set(name, { bytes, config })
    } finally {
      release()
    }
  }

  /** See {@link NexusModel.removeAdapter}. */
  async removeAdapter(name: string): Promise<void> {
    const release = await this.#turn()
    try {
      await this.#ready()
      this.#model.removeAdapter(name)
      this.#changes.set(name, undefined)
    } finally {
      release()
    }
  }

  /**
   * See {@link NexusModel.stream}. After a lost device the answer is made again and goes on where it stopped: the same
   * seed gives the same tokens.
   * @throws DeviceLostError when the device is lost twice during an answer, or the answer cannot go on as it began.
   */
  async *stream(options: PromptOptions): AsyncGenerator<string, Answer> {
    const release = await this.#turn()
    let given = ''
    try {
      for (let attempt = 0; ; attempt++) {
        options.signal?.throwIfAborted()
        await this.#ready()
        const model = this.#model
        try {
          const again = attempt > 0
          let text = ''
          const pieces = model.stream(again ? { ...options, onChoice: undefined } : options)
          try {
            for (;;) {
              const { done, value } = await pieces.next()
              if (done) return value
              text += value
              if (!text.startsWith(given) && !given.startsWith(text))
                throw new DeviceLostError(
                  'The GPU device was lost, and the new one continues the answer otherwise. Ask again.',
                )
              if (text.length > given.length) {
                const piece = text.slice(given.length)
                given = text
                yield piece
              }
            }
          } finally {
            await pieces.return(undefined as never).catch(() => {})
          }
        } catch (error) {
          if (!this.#lost || attempt > 0) throw error
        }
      }
    } finally {
      release()
    }
  }

  /**
   * Does other work with the model, when its turn comes; the model must not be kept.
   * @throws DeviceLostError when the device is lost meanwhile: what was begun is gone.
   */
  async use<T>(work: (model: NexusModel) => Promise<T>): Promise<T> {
    const release = await this.#turn()
    try {
      await this.#ready()
      return await work(this.#model)
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve))
      if (this.#lost) throw new DeviceLostError('The GPU device was lost meanwhile. Begin again.')
      throw error
    } finally {
      release()
    }
  }

  /** Destroys the device, as a driver that crashes does: for tests of what comes after. */
  loseDevice(): void {
    this.#model.gpu.device.destroy()
  }

  /** Waits for its turn. @returns what gives the turn to the next. */
  async #turn(): Promise<() => void> {
    const before = this.#last
    let release = () => {}
    this.#last = new Promise<void>((resolve) => {
      release = resolve
    })
    await before
    return release
  }

  /** Loads the model again if its device is gone. */
  async #ready(): Promise<void> {
    // A device that was lost a moment ago says so in a later task.
    await new Promise((resolve) => setTimeout(resolve))
    if (!this.#lost) return
    const { manifest } = this.#model
    this.#model[Symbol.dispose]()
    const model = await loadModel(this.#source, { ...this.#options, signal: undefined }).catch((error: unknown) => {
      throw new DeviceLostError(`The GPU device was lost, and the model cannot be loaded again: ${messageOf(error)}`)
    })
    if (model.manifest.bundle_id !== manifest.bundle_id) {
      model[Symbol.dispose]()
      throw new BundleError('The GPU device was lost, and there is another bundle in its place now. Load it anew.')
    }
    this.#model = model
    this.#lost = false
    this.#watch()
    for (const [name, added] of this.#changes)
      if (added) model.setAdapter(name, added.bytes, added.config)
      else if (model.capabilities.includes(name)) model.removeAdapter(name)
  }

  #watch(): void {
    const model = this.#model
    model.gpu.onLost((reason) => {
      if (this.#model !== model) return
      this.#lost = true
      this.#options.onLost?.(reason)
    })
  }

  /** Gives all memory back. */
  close(): void {
    this.#model.gpu[Symbol.dispose]()
  }
}

async function loadModel(source: BundleSource, options: SessionOptions): Promise<NexusModel> {
  const gpu = await options.openGpu()
  try {
    return await NexusModel.load(source, { ...options, gpu })
  } catch (error) {
    gpu[Symbol.dispose]()
    throw error
  }
}
