import { parentPort } from 'node:worker_threads'

/**
 * The thread's side of a {@link WorkerPool}: answers each task with what `work` makes of it. Errors cross as copies, which
 * keep the names and messages of JavaScript's own kinds (RangeError, TypeError, …).
 */
export function serve<In>(work: (input: In) => unknown): void {
  parentPort!.on('message', (input: In) => {
    try {
      parentPort!.postMessage({ result: work(input) })
    } catch (error) {
      parentPort!.postMessage({ error })
    }
  })
}
