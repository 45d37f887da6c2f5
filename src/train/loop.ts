import type { FloatType } from '../core/dtype.ts'
import { GpuError, InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { GradientSum } from './gradient-sum.ts'
import type { GradientSource } from './optimiser.ts'
import { type Outputs, Replays, type Values } from './replays.ts'

/** A loss with the terms that it is made of, each f32 [1]. */
export interface Loss {
  readonly total: Tensor<'f32'>
  readonly terms: Readonly<Record<string, Tensor<'f32'>>>
  /** f32 (B): what each row of the batch adds, so that one which is not finite can be named. */
  readonly rows?: Tensor<'f32'>
}

/** What one step of training did. */
export interface StepRecord {
  readonly step: number
  readonly lr: number
  readonly loss: number
  readonly gradientNorm: number
  readonly terms: Readonly<Record<string, number>>
}

/** How long a step took. */
export interface StepTime {
  readonly milliseconds: number
  /** Of them, the time in which the host recorded or replayed and sent, and did not wait. */
  readonly hostMilliseconds: number
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
   * Writes what part `part` of step `index` learns from into tensors that {@link loss} reads. With it, steps are recorded
   * once and replayed, to the same bytes: `loss` and `update` may then depend on `index` and `part` by such tensors alone.
   * @returns the shape of the part: one recording is made for each.
   */
  feed?(index: number, part: number): string
  /** What replays the steps, where other work shares its memory. */
  readonly replays?: Replays
  /** Records the forward pass that takes most memory, where the first step's need not be it. @returns its loss. */
  largest?(step: Step): Tensor<'f32'>
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
  after?(record: StepRecord, time: StepTime): unknown
  /**
   * What step `index` learns from, in words for the message of a loss that is not finite.
   * @param rows those whose loss is not, counted over all parts; all rows unless told.
   */
  describe?(index: number, rows?: readonly number[]): string
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
  const { task, gpu, from = 0, steps, accumulate } = run
  using own = run.replays ? undefined : new Replays(gpu)
  const pieces = run.replays ?? own!
  using sum = accumulate && accumulate.parts > 1 ? new GradientSum(gpu, accumulate.parameters) : undefined
  if (from < steps) {
    await run.prepare?.(from)
    run.feed?.(from, 0)
    // The update needs one number more; forward and backward are what may not fit.
    const pass = (step: Step) => step.backward(run.largest?.(step) ?? run.loss(step, from, 0).total)
    gpu.expectRoom(task, pass)
    if (run.feed) pieces.reserve(pass)
  }
  for (let index = from; index < steps; index++) {
    if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task} after step ${index} of ${steps}`)
    if (index > from) await run.prepare?.(index)
    const started = performance.now()
    pieces.hostMilliseconds = 0
    const record = await (sum ? summedStep(run, pieces, sum, index) : plainStep(run, pieces, index))
    const milliseconds = performance.now() - started
    const verdict = await run.after?.(record, { milliseconds, hostMilliseconds: pieces.hostMilliseconds })
    run.onProgress({
      task,
      done: index + 1,
      total: steps,
      unit: 'steps',
      figures: { loss: record.loss.toFixed(4), ...run.figures?.(record) },
    })
    if (verdict === 'stop') return
  }
}

/** The names of what a step gives beside its terms; a term may be called the same. */
const [totalName, clipName, rowsName] = ['', 'clip factor and norm', 'loss of each row']
const ownNames: readonly string[] = [totalName, clipName, rowsName]

/** What is read of a loss. */
function outputsOf({ total, terms, rows }: Loss): Outputs {
  return { ...terms, [totalName]: total, ...(rows && { [rowsName]: rows }) }
}

async function plainStep(run: TrainLoop, pieces: Replays, index: number): Promise<StepRecord> {
  const values = await pieces.run(run.feed?.(index, 0), run.task, (step) => {
    const loss = run.loss(step, index, 0)
    const clip = run.update(step, step.backward(loss.total), index)
    return { ...outputsOf(loss), [clipName]: clip }
  })
  return recordOf(run, index, [values], values[clipName][1])
}

async function summedStep(run: TrainLoop, pieces: Replays, sum: GradientSum, index: number): Promise<StepRecord> {
  const parts: Values[] = []
  for (let part = 0; part < run.accumulate!.parts; part++) {
    const shape = run.feed?.(index, part)
    const key = shape === undefined ? undefined : `${part === 0 ? 'first' : 'further'} ${shape}`
    parts.push(
      await pieces.run(key, run.task, (step) => {
        const loss = run.loss(step, index, part)
        sum.add(step, step.backward(loss.total), part === 0)
        return outputsOf(loss)
      }),
    )
  }
  const { [clipName]: clip } = await pieces.run(run.feed && 'update', run.task, (step) => ({
    [clipName]: run.update(step, sum.of(step), index),
  }))
  return recordOf(run, index, parts, clip[1])
}

/**
 * The record of a step from the values of its parts.
 * @throws GpuError when it is not finite.
 */
function recordOf(run: TrainLoop, step: number, parts: readonly Values[], gradientNorm: number): StepRecord {
  const total = (name: string) => parts.reduce((sum, values) => sum + values[name][0], 0)
  const names = Object.keys(parts[0]).filter((name) => !ownNames.includes(name))
  const terms = Object.fromEntries(names.map((name) => [name, total(name)]))
  const record = { step, lr: run.lr(step), loss: total(totalName), gradientNorm, terms }
  const rows = parts.flatMap((values) => [...(values[rowsName] ?? [])])
  checkFinite(
    run,
    record,
    [...rows.keys()].filter((row) => !Number.isFinite(rows[row])),
  )
  return record
}

/** @throws GpuError naming the step, the first term that is not finite, all terms, and the data. */
function checkFinite(run: TrainLoop, { step, loss, gradientNorm, terms }: StepRecord, rows: readonly number[]): void {
  if (Number.isFinite(loss) && Number.isFinite(gradientNorm)) return
  const shown = Object.entries(terms).map(([name, value]) => `${name} ${value}`)
  const first = Object.keys(terms).find((name) => !Number.isFinite(terms[name]))
  const what = Number.isFinite(loss)
    ? `The gradient's norm of ${run.task} is ${gradientNorm}`
    : `The loss of ${run.task} is ${loss}`
  const data = run.describe ? `; it learned from ${run.describe(step, rows.length > 0 ? rows : undefined)}` : ''
  throw new GpuError(
    `${what} at step ${step} (${shown.join(', ')})${first === undefined ? '' : `, first in the term ${first}`}${data}: ` +
      'lower the learning rate, or look at the data of this step',
  )
}
