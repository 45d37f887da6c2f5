import type { FloatType } from '../core/dtype.ts'
import { GpuError, InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { GradientSum } from './gradient-sum.ts'
import type { GradientSource } from './optimiser.ts'

/** A loss with the terms that it is made of, each f32 [1]. */
export interface Loss {
  readonly total: Tensor<'f32'>
  readonly terms: Readonly<Record<string, Tensor<'f32'>>>
}

/** What one step of training did. */
export interface StepRecord {
  readonly step: number
  readonly lr: number
  readonly loss: number
  readonly gradientNorm: number
  readonly terms: Readonly<Record<string, number>>
}

/** What {@link trainLoop} needs. */
export interface TrainLoop {
  readonly task: string
  readonly gpu: Gpu
  /** First step to run and the one to stop before. */
  readonly from?: number
  readonly steps: number
  /** Each step is so many passes over a part of its batch, whose gradients for `parameters` are added in f32. */
  readonly accumulate?: { readonly parts: number; readonly parameters: readonly Tensor<FloatType>[] }
  /** Called before each step, to fetch what {@link loss} will read. */
  prepare?(index: number): Promise<void>
  /**
   * Records the forward pass of part `part` of step `index`. Losses and terms of the parts are added: divide by what the
   * whole step has, so that the sum is its mean.
   */
  loss(step: Step, index: number, part: number): Loss
  /** Applies the gradients of step `index`. @returns f32 [2]: clipping factor, norm. */
  update(step: Step, gradients: GradientSource, index: number): Tensor<'f32'>
  /** The learning rate of step `index`, for the log. */
  lr(index: number): number
  /** Called after each step; may save a checkpoint. The run ends when it gives 'stop'. */
  after?(record: StepRecord): unknown
  /** What step `index` learns from, in words for the message of a loss that is not finite. */
  describe?(index: number): string
  readonly onProgress: OnProgress
  /** More figures worth watching, rounded for reading. */
  figures?(record: StepRecord): Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

/**
 * Runs training steps: forward, backward, update, and one read of the loss terms.
 * @throws ResourceError before the first step when it would not fit the memory budget.
 * @throws GpuError when loss or gradient are not finite, naming step, term and data, before it can spoil a checkpoint.
 * @throws InterruptedError between two steps when the signal is aborted.
 */
export async function trainLoop(run: TrainLoop): Promise<void> {
  const from = run.from ?? 0
  if (from < run.steps) {
    await run.prepare?.(from)
    // The update needs one number more; forward and backward are what may not fit.
    run.gpu.expectRoom(run.task, (step) => void step.backward(run.loss(step, from, 0).total))
  }
  for (let index = from; index < run.steps; index++) {
    if (run.signal?.aborted) throw new InterruptedError(`Stopped ${run.task} after step ${index} of ${run.steps}`)
    if (index > from) await run.prepare?.(index)
    const record = await ((run.accumulate?.parts ?? 1) > 1 ? accumulatedStep(run, index) : plainStep(run, index))
    checkFinite(run, record)
    const verdict = await run.after?.(record)
    run.onProgress({
      task: run.task,
      done: index + 1,
      total: run.steps,
      unit: 'steps',
      figures: { loss: record.loss.toFixed(4), ...run.figures?.(record) },
    })
    if (verdict === 'stop') return
  }
}

async function plainStep(run: TrainLoop, index: number): Promise<StepRecord> {
  using step = run.gpu.step({ label: run.task })
  const { total, terms } = run.loss(step, index, 0)
  const clip = run.update(step, step.backward(total), index)
  const names = Object.keys(terms)
  const [loss, [, gradientNorm], ...values] = await Promise.all([
    step.readNumber(total),
    step.read(clip),
    ...names.map((name) => step.readNumber(terms[name])),
  ])
  const named = Object.fromEntries(names.map((name, i) => [name, values[i]]))
  return { step: index, lr: run.lr(index), loss, gradientNorm, terms: named }
}

async function accumulatedStep(run: TrainLoop, index: number): Promise<StepRecord> {
  const { parts: count, parameters } = run.accumulate!
  using sum = new GradientSum(run.gpu, parameters)
  let loss = 0
  const terms: Record<string, number> = {}
  for (let part = 0; part < count; part++) {
    using step = run.gpu.step({ label: run.task })
    const parts = run.loss(step, index, part)
    sum.add(step, step.backward(parts.total))
    const names = Object.keys(parts.terms)
    const [own, ...values] = await Promise.all([
      step.readNumber(parts.total),
      ...names.map((name) => step.readNumber(parts.terms[name])),
    ])
    loss += own
    for (const [i, name] of names.entries()) terms[name] = (terms[name] ?? 0) + values[i]
  }
  using step = run.gpu.step({ label: run.task })
  const [, gradientNorm] = await step.read(run.update(step, sum.of(step), index))
  return { step: index, lr: run.lr(index), loss, gradientNorm, terms }
}

/** @throws GpuError naming the step, the first term that is not finite, all terms, and the data. */
function checkFinite(run: TrainLoop, { step, loss, gradientNorm, terms }: StepRecord): void {
  if (Number.isFinite(loss) && Number.isFinite(gradientNorm)) return
  const shown = Object.entries(terms).map(([name, value]) => `${name} ${value}`)
  const first = Object.keys(terms).find((name) => !Number.isFinite(terms[name]))
  const what = Number.isFinite(loss)
    ? `The gradient's norm of ${run.task} is ${gradientNorm}`
    : `The loss of ${run.task} is ${loss}`
  const data = run.describe ? `; it learned from ${run.describe(step)}` : ''
  throw new GpuError(
    `${what} at step ${step} (${shown.join(', ')})${first === undefined ? '' : `, first in the term ${first}`}${data}: ` +
      'lower the learning rate, or look at the data of this step',
  )
}
