// A peer in a process of its own, as the bench sees it.
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'

/** What a peer's process can be asked; it answers in order. */
export type Request =
  /** Its version. */
  | { readonly do: 'open' }
  /** Makes a case ready and gives its result, or null where the peer has no such op. */
  | { readonly do: 'prepare'; readonly name: string }
  /** Times of runs of the case that is ready, in ms. */
  | { readonly do: 'time'; readonly count: number }

interface Reply {
  readonly value?: unknown
  readonly fault?: string
}

const secondsForAnAnswer = 180

/** A peer's process. It is started when it is first asked, and again after it died. */
export class PeerProcess implements Disposable {
  readonly name: string
  readonly #adapter: string | undefined
  #child: ChildProcess | undefined
  #stderr = ''

  constructor(name: string, adapter: string | undefined) {
    this.name = name
    this.#adapter = adapter
  }

  /** The number of its process while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /**
   * Sends a request and waits for its answer.
   * @throws Error with the peer's message, or how its process ended, or that it took too long and was killed.
   */
  ask(request: Request): Promise<unknown> {
    this.#child ??= this.#start()
    const child = this.#child
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        clearTimeout(timer)
        child.off('message', onMessage).off('exit', onExit)
        finish()
      }
      const fail = (reason: string) => settle(() => reject(new Error(reason)))
      const onMessage = ({ fault, value }: Reply) =>
        fault === undefined ? settle(() => resolve(value)) : fail(fault.split('\n')[0])
      const onExit = (code: number | null, signal: string | null) => {
        const last = this.#stderr.trim().split('\n').at(-1)
        fail(`its process ended with ${signal ?? code}${last ? `: ${last}` : ''}`)
      }
      const timer = setTimeout(() => {
        this.#child = undefined
        child.kill('SIGKILL')
        fail(`no answer for ${secondsForAnAnswer} s`)
      }, secondsForAnAnswer * 1000)
      child.on('message', onMessage).on('exit', onExit)
      // Where it cannot be sent the process is ending, and `exit` says why.
      child.send(request, () => {})
    })
  }

  #start(): ChildProcess {
    const file = join(import.meta.dirname, 'child.ts')
    const words = this.#adapter === undefined ? [this.name] : [this.name, this.#adapter]
    const child = fork(file, words, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], serialization: 'advanced' })
    this.#stderr = ''
    // Before anybody who waits hears of it: its channel may look open for a while after it died.
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined
    })
    child.stderr!.on('data', (text: Buffer) => {
      this.#stderr = (this.#stderr + text).slice(-2000)
    })
    return child
  }

  [Symbol.dispose](): void {
    this.#child?.kill('SIGKILL')
    this.#child = undefined
  }
}
