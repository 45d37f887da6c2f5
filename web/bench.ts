import { messageOf } from '../src/core/errors.ts'
import type { PlaygroundModel, Reply, Request } from './model.ts'

/** How the next answer is sampled, as the person set it. */
export type SamplingSettings = Omit<Request, 'prompt' | 'capability'>

/** An adapter that came into being in this page. */
export interface OwnAdapter {
  readonly name: string
  /** Where it came from. */
  readonly origin: 'trained' | 'opened'
  /** In PEFT's layout. */
  readonly zip: Uint8Array<ArrayBuffer>
}

/** A part of the page that works with a model. */
export interface View {
  readonly title: string
  readonly element: HTMLElement
}

/** What the views share: the model, the settings, the adapters made here, and whose turn it is. */
export class Bench {
  readonly model: PlaygroundModel
  readonly settings: () => SamplingSettings
  /** Shows a view by its title, and hands it a capability to begin with. */
  show: (title: string, capability?: string) => void = () => {}
  /** Told when the GPU is gone and the model cannot be loaded again by itself. */
  onGone: (message: string) => void = () => {}
  readonly #own: OwnAdapter[]
  readonly #listeners: (() => void)[] = []
  #stop: AbortController | undefined

  /** @param own adapters made before the model was loaded again; shared, so that they outlive this bench. */
  constructor(model: PlaygroundModel, settings: () => SamplingSettings, own: OwnAdapter[]) {
    this.model = model
    this.settings = settings
    this.#own = own
  }

  /** Adapters that were trained or opened in this page. */
  get own(): readonly OwnAdapter[] {
    return this.#own
  }

  /** Whether something runs. */
  get busy(): boolean {
    return this.#stop !== undefined
  }

  /** Calls back when something begins or ends, or an adapter comes or goes. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
    listener()
  }

  /** Runs one piece of work; nothing else runs meanwhile. @returns what it gave, or nothing if something runs already. */
  async run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    if (this.#stop) return undefined
    const stop = new AbortController()
    this.#stop = stop
    this.#changed()
    try {
      return await work(stop.signal)
    } finally {
      this.#stop = undefined
      this.#changed()
    }
  }

  /** Stops what runs. */
  stop(): void {
    this.#stop?.abort()
  }

  /** Answers a request with the settings of the moment. */
  answer(request: Pick<Request, 'prompt' | 'capability'>, onPiece: (text: string) => void, signal: AbortSignal) {
    return this.model.generate({ ...this.settings(), ...request }, onPiece, signal) satisfies Promise<Reply>
  }

  /** Keeps an adapter that the model has now. */
  keep(adapter: OwnAdapter): void {
    this.#own.push(adapter)
    this.#changed()
  }

  /** Takes an adapter of this page away. */
  async remove(name: string): Promise<void> {
    await this.model.removeAdapter(name)
    const at = this.#own.findIndex((adapter) => adapter.name === name)
    if (at >= 0) this.#own.splice(at, 1)
    this.#changed()
  }

  /** @throws RangeError when an adapter may not be called so. */
  checkName(name: string): void {
    if (!/^[a-z0-9][a-z0-9_-]{0,39}$/.test(name))
      throw new RangeError('Give it a name of small letters, digits, - and _, at most 40 of them.')
    if (this.model.manifest.capabilities[name] || this.model.capabilities.includes(name))
      throw new RangeError(`There is an adapter called ${name} already: choose another name.`)
  }

  #changed(): void {
    for (const listener of this.#listeners) listener()
  }
}

/** Whether an error is only that the person stopped the work. */
export function wasStopped(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && ['AbortError', 'InterruptedError'].includes((error as Error)?.name)
}

/** Whether the GPU was lost for good: a model that is only to be asked again says so itself. */
export function isGone(error: unknown): boolean {
  return (error as Error)?.name === 'DeviceLostError' && /cannot be loaded again/.test((error as Error).message)
}

/** What went wrong, as a sentence. */
export function sentenceOf(error: unknown): string {
  const message = messageOf(error)
  return /[.!?]$/.test(message) ? message : `${message}.`
}
