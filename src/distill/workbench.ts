import { Random } from '../core/random.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { scale } from '../kernels/elementwise.ts'
import type { Decoder } from '../models/decoder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { anchorBases } from './anchors.ts'
import { Capture, type CaptureRows } from './capture-store.ts'
import { type AnchoredTerms, anchoredTerms } from './losses.ts'
import { type ControlName, type NiwtRun, paths } from './run.ts'
import type { Student } from './student.ts'
import type { StudentArchitecture } from './synthesize.ts'

/** What training works on, put together once. Dispose of it when done. */
export class Workbench implements AsyncDisposable {
  readonly run: NiwtRun
  readonly student: Student
  readonly architecture: StudentArchitecture
  readonly captures: ReadonlyMap<string, Capture>
  readonly control: ControlName | undefined
  /** A teacher beside the student. */
  readonly teacher: Decoder | undefined
  readonly #bases: ReadonlyMap<string, ReadonlyMap<string, CpuTensor>>
  readonly #current = new Map<string, CaptureRows>()

  private constructor(
    run: NiwtRun,
    student: Student,
    architecture: StudentArchitecture,
    control: ControlName | undefined,
    teacher: Decoder | undefined,
    captures: ReadonlyMap<string, Capture>,
    bases: ReadonlyMap<string, ReadonlyMap<string, CpuTensor>>,
  ) {
    this.run = run
    this.student = student
    this.architecture = architecture
    this.control = control
    this.teacher = teacher
    this.captures = captures
    this.#bases = bases
  }

  /** Opens the captures of a run for `student`, or for the student of a control. */
  static async open(
    run: NiwtRun,
    student: Student,
    architecture: StudentArchitecture,
    { control, teacher }: { control?: ControlName; teacher?: Decoder } = {},
  ): Promise<Workbench> {
    const where = paths(run.folder, run.teacherName)
    const captures = new Map<string, Capture>()
    const bases = new Map<string, Map<string, CpuTensor>>()
    for (const { name } of run.capabilities) {
      captures.set(name, await Capture.open(where.capture(name)))
      if (architecture.anchors.outputs.length > 0)
        bases.set(name, await anchorBases(run, name, architecture.anchors, run.settings.capture))
    }
    return new Workbench(run, student, architecture, control, teacher, captures, bases)
  }

  /** Whether the loss has anchors. */
  get anchored(): boolean {
    if (this.control === 'cross-entropy' || this.control === 'no-anchors') return false
    if (this.run.settings.distil.gradientCheckpoint) return false
    if (this.architecture.anchors.outputs.length === 0) return false
    const [capture] = this.captures.values()
    return this.teacher !== undefined || capture.has(`anchor.${this.architecture.anchors.query}`)
  }

  /** Reads the rows of step `index` of a capability, which {@link terms} then uses. */
  async fetch(name: string, index: number): Promise<void> {
    const capture = this.captures.get(name)!
    this.#current.set(name, await capture.read(drawRows(this.run, capture, name, index)))
  }

  /** Tokens of the rows that were fetched last, of all capabilities together. */
  get tokens(): number {
    return [...this.#current.values()].reduce((sum, { rows, tokens }) => sum + rows * tokens, 0)
  }

  /** The terms of the loss of a capability on the rows that were fetched last. */
  terms(step: Step, name: string, reverse: boolean): AnchoredTerms {
    const { student, architecture, teacher, anchored } = this
    return anchoredTerms(step, {
      ...{ student: student.backbone, adapter: student.adapters.get(name)!, rows: this.#current.get(name)! },
      ...{
        anchors: architecture.anchors,
        bases: this.#bases.get(name) ?? new Map(),
        anchored,
        ...(teacher && { teacher }),
      },
      output: this.control === 'cross-entropy' ? 'crossEntropy' : reverse ? 'reverseKl' : 'forwardKl',
      checkpoint: this.run.settings.distil.gradientCheckpoint ?? false,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const capture of this.captures.values()) await capture[Symbol.asyncDispose]()
  }
}

/** Most rows at the end of each capture that training does not see: recovery checks and the router's score use them. */
const mostReserved = 40

/** How many rows a capture keeps from training: 40, or a fifth of few. */
export function reservedRows({ rows }: Pick<Capture, 'rows'>): number {
  return Math.min(mostReserved, Math.ceil(rows / 5))
}

/** L = L_output + α · L_activation + β · L_attention, with the weights as they are at this step. */
export function weigh(
  step: Step,
  { output, activation, attention }: AnchoredTerms,
  weights: { activation: number; attention: number },
): Tensor<'f32'> {
  if (!activation || !attention) return output
  const anchors = add(step, scale(step, activation, weights.activation), scale(step, attention, weights.attention))
  return add(step, output, anchors)
}

/**
 * The rows of step `index`: every epoch a permutation of its own, so that a resumed run sees the same.
 * @throws RangeError when a step asks for more rows than the capture has for training.
 */
export function drawRows(run: NiwtRun, capture: Pick<Capture, 'rows'>, name: string, index: number): number[] {
  const open = capture.rows - reservedRows(capture)
  const count = run.settings.distil.rows[name]
  if (!(count >= 1 && count <= open))
    throw new RangeError(
      `Cannot draw ${count} rows a step of ${name}: its capture has ${open} for training; give distil.rows or capture.rows`,
    )
  const perEpoch = Math.floor(open / count)
  const epoch = Math.floor(index / perEpoch)
  const order = new Random(run.seed * 7919 + epoch).shuffle(Array.from({ length: open }, (_, row) => row))
  const begin = (index % perEpoch) * count
  return order.slice(begin, begin + count)
}

/** Rows that training never drew, for checks. */
export function reserved(capture: Pick<Capture, 'rows'>): number[] {
  const count = reservedRows(capture)
  return Array.from({ length: count }, (_, i) => capture.rows - count + i)
}
