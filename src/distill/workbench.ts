import { Random } from '../core/random.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { scale } from '../kernels/elementwise.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { Capture } from './capture.ts'
import type { AnchoredTerms } from './losses.ts'
import type { NiwtRun } from './run.ts'
import type { Student } from './student.ts'
import type { StudentArchitecture } from './synthesize.ts'

/** What training works on, put together once. */
export interface Workbench {
  readonly student: Student
  readonly captures: ReadonlyMap<string, Capture>
  readonly bases: ReadonlyMap<string, ReadonlyMap<string, CpuTensor>>
  readonly architecture: StudentArchitecture
}

/** Rows at the end of each capture that training does not see: recovery checks and the router's score use them. */
export const reservedRows = 40

/** L = L_output + α · L_activation + β · L_attention, with the weights as they are at this step. */
export function weigh(
  step: Step,
  parts: AnchoredTerms,
  weights: { activation: number; attention: number },
): Tensor<'f32'> {
  const anchors = add(
    step,
    scale(step, parts.activation, weights.activation),
    scale(step, parts.attention, weights.attention),
  )
  return add(step, parts.output, anchors)
}

/** The rows of step `index`: every epoch a permutation of its own, so that a resumed run sees the same. */
export function drawRows(run: NiwtRun, capture: Capture, name: string, index: number): number[] {
  const open = capture.rows - reservedRows
  const count = run.settings.distil.rows[name]
  const perEpoch = Math.floor(open / count)
  const epoch = Math.floor(index / perEpoch)
  const order = new Random(run.seed * 7919 + epoch).shuffle(Array.from({ length: open }, (_, row) => row))
  const begin = (index % perEpoch) * count
  return order.slice(begin, begin + count)
}

/** Rows that training never drew, for checks. */
export function reserved(capture: Capture): number[] {
  return Array.from({ length: reservedRows }, (_, i) => capture.rows - reservedRows + i)
}
