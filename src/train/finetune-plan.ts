import type { Step } from '../runtime/step.ts'
import { FinetuneBench } from './finetune-bench.ts'
import { type FinetuneOptions, openBase, openRows, startOfDay } from './finetune-inputs.ts'
import { checkFinetune } from './finetune-settings.ts'

/** What a run would take: see {@link planFinetune}. */
export interface FinetunePlan {
  readonly steps: number
  readonly rows: { readonly train: number; readonly eval: number }
  /** Tokens of the data, tokens among them that are learned, and tokens cut off at the length. */
  readonly tokens: number
  readonly learned: number
  readonly cut: number
  readonly parameters: number
  /** Bytes of weights, adapter and optimiser, and of one pass beside them. */
  readonly residentBytes: number
  readonly passBytes: number
  /** Of one step with full rows, measured. */
  readonly secondsPerStep: number
  readonly seconds: number
}

/**
 * What a run would take: rows, steps, memory by planning, time by running one pass with full rows. Of `out` only the
 * encoded data is written.
 */
export async function planFinetune(options: FinetuneOptions): Promise<FinetunePlan> {
  const { gpu, settings } = options
  await using base = await openBase(options)
  checkFinetune(settings, base.config)
  await using rows = await openRows(options, base, startOfDay())
  using bench = await FinetuneBench.open(options, base, rows)
  const residentBytes = gpu.memory.liveBytes
  const pass = (step: Step) => {
    const loss = bench.largest(step)
    step.backward(loss)
    return loss
  }
  const { peakBytes } = gpu.expectRoom('finetune', pass)
  let seconds = 0
  // The first pass compiles the kernels; the second is the measure.
  for (let round = 0; round < 2; round++) {
    const started = performance.now()
    using step = gpu.step({ label: 'plan' })
    await step.readNumber(pass(step))
    seconds = (performance.now() - started) / 1000
  }
  const secondsPerStep = seconds * settings.accumulate
  const { summary } = rows
  return {
    ...{ steps: bench.steps, rows: bench.data.sizes },
    ...{ tokens: summary.ids - summary.rows, learned: summary.learned, cut: summary.cut },
    ...{ parameters: bench.adapter.parameterCount, residentBytes, passBytes: peakBytes },
    ...{ secondsPerStep, seconds: secondsPerStep * bench.steps },
  }
}
