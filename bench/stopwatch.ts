import Benchmark from 'benchmark'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import { type Timing, timingOf } from './timing.ts'

/** Times `work`, recorded `repeat` times into one step, until the GPU is done; the time is that of one of them. */
export type Stopwatch = (work: (step: Step) => void, repeat?: number) => Promise<Timing>

/** @param quick a few samples instead of at least twenty. */
export function stopwatch(gpu: Gpu, quick: boolean): Stopwatch {
  return (work, repeat = 1) => {
    const run = async () => {
      using step = gpu.step()
      for (let i = 0; i < repeat; i++) work(step)
      await gpu.finish()
    }
    return new Promise((resolve, reject) => {
      const bench = new Benchmark('op', {
        defer: true,
        minSamples: quick ? 3 : 20,
        maxTime: quick ? 0.1 : 1,
        minTime: 0.005,
        fn: (deferred: { resolve(): void }) => {
          run().then(() => deferred.resolve(), reject)
        },
        onComplete(this: Benchmark) {
          resolve(timingOf(this.stats.sample.map((seconds) => (1000 * seconds) / repeat)))
        },
        onError: (event: { target: { error: Error } }) => reject(event.target.error),
      })
      run().then(() => bench.run({ async: true }), reject)
    })
  }
}
