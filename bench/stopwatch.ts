import Benchmark from 'benchmark'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import { type Timing, timingOf } from './timing.ts'

/** Times `work`, recorded `repeat` times into one step, until the GPU is done; the time is that of one of them. */
export type Stopwatch = (work: (step: Step) => void, repeat?: number) => Promise<Timing>

/** ms that the samples of one op may take, but for the fewest. */
const longest = 4000
const [most, fewest] = [20, 6]

/** @param quick a few samples instead of a second of them: 20 at least, down to 6 where 20 would take more than four seconds. */
export function stopwatch(gpu: Gpu, quick: boolean): Stopwatch {
  return async (work, repeat = 1) => {
    const run = async () => {
      using step = gpu.step()
      for (let i = 0; i < repeat; i++) work(step)
      await gpu.finish()
    }
    // The first run compiles; the second says how long the others take.
    await run()
    const began = performance.now()
    await run()
    const affordable = Math.floor(longest / (performance.now() - began))
    return new Promise((resolve, reject) => {
      const bench = new Benchmark('op', {
        defer: true,
        minSamples: quick ? 3 : Math.min(most, Math.max(fewest, affordable)),
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
      bench.run({ async: true })
    })
  }
}
