import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

const mostWorkers = 8

interface Task {
  readonly input: unknown
  readonly transfer: readonly ArrayBuffer[]
  readonly resolve: (result: never) => void
  readonly reject: (error: unknown) => void
}

/**
 * Threads that do one kind of work: a task each at a time, the others wait in line. A thread starts with the first task
 * that finds no idle one. Threads end with `dispose`.
 */
export class WorkerPool {
  readonly #script: URL
  readonly #size: number
  readonly #idle: Worker[] = []
  readonly #busy = new Map<Worker, Task>()
  readonly #waiting: Task[] = []

  /** @param script a module that calls `serve` of `worker-thread.ts`. */
  constructor(script: URL, size = Math.min(mostWorkers, availableParallelism())) {
    this.#script = script
    this.#size = size
  }

  /** How many threads there are at most. */
  get size(): number {
    return this.#size
  }

  /**
   * What the thread's function makes of `input`.
   * @param transfer buffers of `input` that move to the thread; they are empty here afterwards.
   * @throws what the function throws, by the same name and message; Error when the thread dies.
   */
  run<T>(input: unknown, transfer: readonly ArrayBuffer[] = []): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ input, transfer, resolve, reject })
      this.#next()
    })
  }

  #next(): void {
    if (this.#waiting.length === 0) return
    if (this.#idle.length === 0 && this.#busy.size >= this.#size) return
    const task = this.#waiting.shift()!
    const worker = this.#idle.pop() ?? this.#start()
    try {
      worker.postMessage(task.input, task.transfer)
      this.#busy.set(worker, task)
    } catch (error) {
      this.#idle.push(worker)
      task.reject(error)
    }
  }

  #start(): Worker {
    const worker = new Worker(this.#script)
    worker.on('message', ({ result, error }: { result: never; error?: unknown }) => {
      const task = this.#busy.get(worker)!
      this.#busy.delete(worker)
      this.#idle.push(worker)
      if (error === undefined) task.resolve(result)
      else task.reject(error)
      this.#next()
    })
    const die = (cause: unknown) => {
      this.#busy.get(worker)?.reject(cause)
      this.#busy.delete(worker)
      const at = this.#idle.indexOf(worker)
      if (at >= 0) this.#idle.splice(at, 1)
      this.#next()
    }
    worker.on('error', die)
    worker.on('exit', (code) => die(new Error(`A worker thread ended with code ${code}`)))
    return worker
  }

  /** Ends all threads; tasks that are not done fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('The worker threads were ended'))
    await Promise.all([...this.#idle, ...this.#busy.keys()].map((worker) => worker.terminate()))
  }
}
