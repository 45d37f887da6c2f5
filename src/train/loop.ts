import { GpuError, InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Gradients, Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'

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
  /** Records the forward pass of step `index`. */
  loss(step: Step, index: number): Loss
  /** Applies the gradients of step `index`. @returns f32 [2]: clipping factor, norm. */
  update(step: Step, gradients: Gradients, index: number): Tensor<'f32'>
  /** The learning rate of step `index`, for the log. */
  lr(index: number): number
  /** Called after each step; may save a checkpoint. */
  after?(record: StepRecord): Promise<void> | void
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/**
 * Runs training steps: forward, backward, update, and one read of the loss terms.
 * @throws ResourceError before the first step when it would not fit the memory budget.
 * @throws GpuError when the loss is not finite, before it can spoil a checkpoint.
 * @throws InterruptedError between two steps when the signal is aborted.
 */
export async function trainLoop(run: TrainLoop): Promise<void> {
  const from = run.from ?? 0
  // The update needs one number more; forward and backward are what may not fit.
  if (from < run.steps) run.gpu.expectRoom(run.task, (step) => void step.backward(run.loss(step, from).total))
  for (let index = from; index < run.steps; index++) {
    if (run.signal?.aborted) throw new InterruptedError(`Stopped ${run.task} after step ${index} of ${run.steps}`)
    using step = run.gpu.step({ label: run.task })
    const { total, terms } = run.loss(step, index)
    const clip = run.update(step, step.backward(total), index)
    const names = Object.keys(terms)
    const [loss, [, gradientNorm], ...values] = await Promise.all([
      step.readNumber(total),
      step.read(clip),
      ...names.map((name) => step.readNumber(terms[name])),
    ])
    if (!Number.isFinite(loss))
      throw new GpuError(
        `The loss of ${run.task} is ${loss} at step ${index} (${names.map((name, i) => `${name} ${values[i]}`).join(', ')}): ` +
          'lower the learning rate, or look at the data of this step',
      )
    const record = {
      step: index,
      lr: run.lr(index),
      loss,
      gradientNorm,
      terms: Object.fromEntries(names.map((name, i) => [name, values[i]])),
    }
    await run.after?.(record)
    run.onProgress({
      task: run.task,
      done: index + 1,
      total: run.steps,
      unit: 'steps',
      figures: { loss: loss.toFixed(4) },
    })
  }
}
