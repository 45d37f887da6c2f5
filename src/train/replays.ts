import type { Gpu } from '../runtime/gpu.ts'
import type { Recording } from '../runtime/recording.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { Workspace } from '../runtime/workspace.ts'

/** Tensors by name that a piece of work makes, and whose values are wanted. */
export type Outputs = Readonly<Record<string, Tensor<'f32'>>>

/** The values of {@link Outputs}. */
export type Values = Readonly<Record<string, Float32Array>>

interface Recorded {
  readonly recording: Recording
  readonly scope: Scope
  readonly outputs: Outputs
}

/** Recordings kept: batches come in few lengths, and each recording is some thousand commands. */
const mostRecordings = 16

/**
 * Runs work of a step: recorded when its key is seen for the first time, and replayed from then on. All recordings share
 * their memory; the one that was not used for longest makes room for a new one.
 */
export class Replays implements Disposable {
  /** Milliseconds of the host in which no work of the GPU was waited for, since the last look. */
  hostMilliseconds = 0
  readonly #gpu: Gpu
  readonly #workspace: Workspace
  /** The longest unused first. */
  readonly #recorded = new Map<string, Recorded>()

  constructor(gpu: Gpu) {
    this.#gpu = gpu
    this.#workspace = gpu.workspace()
  }

  /** Recordings kept now. */
  get size(): number {
    return this.#recorded.size
  }

  /** Takes the memory of the largest work, so that all smaller finds room in it. */
  reserve(work: (step: Step) => void): void {
    this.#gpu.record(work, this.#workspace)[Symbol.dispose]()
  }

  /**
   * Runs `work`, or what was recorded of it.
   * @param key without one, the work is run and forgotten. What changes between two runs with the same key lies in tensors.
   * @returns the values of the tensors that `work` gave.
   */
  async run(key: string | undefined, label: string, work: (step: Step) => Outputs): Promise<Values> {
    const started = performance.now()
    if (key === undefined) {
      using step = this.#gpu.step({ label })
      const outputs = work(step)
      this.#count(started)
      return await valuesOf(this.#gpu, outputs)
    }
    const recorded = this.#recorded.get(key) ?? this.#record(work)
    this.#recorded.delete(key)
    this.#recorded.set(key, recorded)
    for (const [old] of [...this.#recorded].slice(0, -mostRecordings)) this.#drop(old)
    recorded.recording.replay()
    this.#count(started)
    return await valuesOf(this.#gpu, recorded.outputs)
  }

  /** Forgets all recordings and gives their memory back; work that comes is recorded anew. */
  clear(): void {
    for (const key of [...this.#recorded.keys()]) this.#drop(key)
    this.#workspace[Symbol.dispose]()
  }

  #record(work: (step: Step) => Outputs): Recorded {
    const scope = this.#gpu.scope('outputs')
    const kept = new Map<Tensor, Tensor<'f32'>>()
    let outputs: Outputs = {}
    const recording = this.#gpu.record((step) => {
      outputs = Object.fromEntries(
        Object.entries(work(step)).map(([name, tensor]) => {
          const own = kept.get(tensor) ?? step.keep(tensor, scope)
          kept.set(tensor, own)
          return [name, own]
        }),
      )
    }, this.#workspace)
    return { recording, scope, outputs }
  }

  #count(started: number): void {
    this.hostMilliseconds += performance.now() - started
  }

  #drop(key: string): void {
    const { recording, scope } = this.#recorded.get(key)!
    this.#recorded.delete(key)
    recording[Symbol.dispose]()
    scope[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    this.clear()
  }
}

async function valuesOf(gpu: Gpu, outputs: Outputs): Promise<Values> {
  const entries = Object.entries(outputs)
  const values = await Promise.all(entries.map(([, tensor]) => gpu.read(tensor)))
  return Object.fromEntries(entries.map(([name], i) => [name, values[i]]))
}
