import { Random } from '../core/random.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { mul, scale } from '../kernels/elementwise.ts'
import type { Decoder } from '../models/decoder.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { anchorBases } from './anchors.ts'
import { Capture } from './capture-store.ts'
import { type AnchoredTerms, anchoredTerms, type TermsOptions, wantedOf } from './losses.ts'
import { type ControlName, type NiwtRun, paths } from './run.ts'
import type { Student } from './student.ts'
import type { StudentArchitecture } from './synthesize.ts'
import { inputValues, type TermInputs, uploadBases, uploadInputs, writeInputs } from './term-inputs.ts'

/** Rows on the GPU. */
interface Fetched {
  readonly tokens: number
  readonly shape: string
  readonly inputs: TermInputs
}

/** What training works on, put together once. Dispose of it when done. */
export class Workbench implements AsyncDisposable {
  readonly run: NiwtRun
  readonly student: Student
  readonly architecture: StudentArchitecture
  readonly captures: ReadonlyMap<string, Capture>
  readonly control: ControlName | undefined
  /** A teacher beside the student. */
  readonly teacher: Decoder | undefined
  readonly #scope: Scope
  readonly #bases: ReadonlyMap<string, ReadonlyMap<string, Tensor<'f32'>>>
  readonly #current = new Map<string, Fetched>()
  /** Where rows are written, by capability and shape. */
  readonly #rooms = new Map<string, TermInputs>()

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
    this.#scope = run.gpu.scope('inputs')
    this.#bases = new Map([...bases].map(([name, own]) => [name, uploadBases(this.#scope, own)]))
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

  /** Reads the rows of step `index` of a capability to where {@link terms} finds them, with other rows of their shape. */
  async fetch(name: string, index: number): Promise<void> {
    const capture = this.captures.get(name)!
    const rows = await capture.read(drawRows(this.run, capture, name, index))
    const values = inputValues(rows, wantedOf(this.#how(false), capture.has('top.ids')))
    const shape = `${name} ${values.get('places')!.shape}`
    const room = this.#rooms.get(shape)
    if (room) writeInputs(this.run.gpu, room, values)
    const inputs = room ?? uploadInputs(this.#scope, values)
    this.#rooms.set(shape, inputs)
    this.#current.set(name, { tokens: rows.rows * rows.tokens, shape, inputs })
  }

  /** Tokens of the rows that were fetched last, of all capabilities together. */
  get tokens(): number {
    return [...this.#current.values()].reduce((sum, { tokens }) => sum + tokens, 0)
  }

  /** What the work on the rows of a capability that were fetched last has in common with that on others. */
  shapeOf(name: string): string {
    return this.#current.get(name)!.shape
  }

  /** The terms of the loss of a capability on the rows that were fetched last. */
  terms(step: Step, name: string, reverse: boolean): AnchoredTerms {
    const { student, architecture } = this
    return anchoredTerms(step, {
      ...{ student: student.backbone, adapter: student.adapters.get(name)!, inputs: this.#current.get(name)!.inputs },
      ...{ anchors: architecture.anchors, bases: this.#bases.get(name) ?? new Map(), ...this.#how(reverse) },
      checkpoint: this.run.settings.distil.gradientCheckpoint ?? false,
    })
  }

  #how(reverse: boolean): Pick<TermsOptions, 'teacher' | 'output' | 'anchored'> {
    const { teacher, anchored, control } = this
    const output = control === 'cross-entropy' ? 'crossEntropy' : reverse ? 'reverseKl' : 'forwardKl'
    return { output, anchored, ...(teacher && { teacher }) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#scope[Symbol.dispose]()
    for (const capture of this.captures.values()) await capture[Symbol.asyncDispose]()
  }
}

/** Most rows at the end of each capture that training does not see: recovery checks and the router's score use them. */
const mostReserved = 40

/** How many rows a capture keeps from training: 40, or a fifth of few. */
export function reservedRows({ rows }: Pick<Capture, 'rows'>): number {
  return Math.min(mostReserved, Math.ceil(rows / 5))
}

/** What a term counts: a number, or f32 [1], which a replayed step reads anew. */
export type Weight = number | Tensor<'f32'>

/** L = L_output + α · L_activation + β · L_attention, with the weights as they are at this step. */
export function weigh(
  step: Step,
  { output, activation, attention }: AnchoredTerms,
  weights: Readonly<Record<'activation' | 'attention', Weight>>,
): Tensor<'f32'> {
  if (!activation || !attention) return output
  const times = (term: Tensor<'f32'>, weight: Weight) =>
    typeof weight === 'number' ? scale(step, term, weight) : mul(step, term, weight)
  return add(step, output, add(step, times(activation, weights.activation), times(attention, weights.attention)))
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
