import type { Step } from '../runtime/step.ts'
import { FinetuneBench } from './finetune-bench.ts'
import { type FinetuneOptions, openBase, openRows, startOfDay } from './finetune-inputs.ts'
import { checkFinetune } from './finetune-settings.ts'
import { Replays } from './replays.ts'

/** What a run would take: see {@link planFinetune}. */
export interface FinetunePlan {
  readonly steps: number
  readonly rows: { readonly train: number; readonly eval: number }
  /** Tokens of the data, tokens among them that are learned, and tokens cut off at the length. */
  readonly tokens: number
  readonly learned: number
  readonly cut: number
  readonly parameters: number
  /** Bytes of weights, adapter, gradient sums and optimiser, and of one pass beside them. */
  readonly residentBytes: number
  readonly passBytes: number
  /** Bytes of the encoded data, the checkpoints that are kept and the adapter. */
  readonly diskBytes: number
  /** Of a batch with full rows, measured: forward, backward, and the optimiser's update. */
  readonly seconds: { readonly forward: number; readonly backward: number; readonly update: number }
  /** Of one step with full rows, and of all. */
  readonly secondsPerStep: number
  readonly secondsInAll: number
}

/**
 * What a run would take: rows, steps, memory by planning, time by running a step with full rows. Of `out` only the encoded
 * data is written.
 * @throws ResourceError when it would not fit the memory budget.
 */
export async function planFinetune(options: FinetuneOptions): Promise<FinetunePlan> {
  const { gpu, settings } = options
  await using base = await openBase(options)
  checkFinetune(settings, base.config)
  await using rows = await openRows(options, base, startOfDay())
  using bench = await FinetuneBench.open(options, base, rows)
  const { parameterCount: parameters } = bench.adapter
  const sumBytes = settings.accumulate > 1 ? 4 * parameters : 0
  const residentBytes = gpu.memory.liveBytes + sumBytes
  const { peakBytes } = gpu.expectRoom('finetune', (step) => void step.backward(bench.largest(step)))
  const seconds = await measure(options, bench)
  const secondsPerStep = settings.accumulate * (seconds.forward + seconds.backward) + seconds.update
  const { summary } = rows
  const checkpoint = 4 * parameters + bench.optimiser.stateBytes
  return {
    ...{ steps: bench.steps, rows: bench.data.sizes },
    ...{ tokens: summary.ids - summary.rows, learned: summary.learned, cut: summary.cut },
    ...{ parameters, residentBytes, passBytes: peakBytes },
    // The newest ones, the best, and one that is being written.
    diskBytes: 4 * summary.ids + 8 * summary.rows + (settings.keep + 2) * checkpoint + 4 * parameters,
    ...{ seconds, secondsPerStep, secondsInAll: secondsPerStep * bench.steps },
  }
}

/** Seconds of the parts of a step, replayed as a run would: the first time compiles the kernels, the second counts. */
async function measure({ gpu }: FinetuneOptions, bench: FinetuneBench): Promise<FinetunePlan['seconds']> {
  using pieces = new Replays(gpu)
  const second = async (key: string, work: Parameters<Replays['run']>[2]) => {
    let seconds = 0
    for (let round = 0; round < 2; round++) {
      const started = performance.now()
      await pieces.run(key, 'plan', work)
      seconds = (performance.now() - started) / 1000
    }
    return seconds
  }
  const forward = await second('forward', (step) => ({ loss: step.withoutGradients(() => bench.largest(step)) }))
  const pass = (step: Step) => {
    const loss = bench.largest(step)
    return { loss, gradients: step.backward(loss) }
  }
  const both = await second('pass', (step) => ({ loss: pass(step).loss }))
  // A rate of zero: the adapter stays what it is.
  bench.optimiser.begin(0)
  const whole = await second('step', (step) => {
    const { loss, gradients } = pass(step)
    return { loss, clip: bench.optimiser.update(step, gradients) }
  })
  return { forward, backward: Math.max(0, both - forward), update: Math.max(0, whole - both) }
}
