import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { relationKl as wgsl } from './wgsl.gen.ts'

/** How {@link relationKl} looks. */
export interface RelationOptions {
  /** Relation heads: features are regrouped into so many, whatever the heads of the models; 1 unless told. */
  readonly heads?: number
  /** Factor of the student's relations; 1/√(Cs / heads) unless told. */
  readonly scale?: number
  /** Factor of the teacher's relations; 1/√(Ct / heads) unless told. */
  readonly teacherScale?: number
  /** Whether a token relates only to itself and those before it; false unless told. */
  readonly causal?: boolean
}

/**
 * KL(teacher‖student) between rows of softmax(a · aᵀ · scale), a being queries, keys or values: how the tokens of a text
 * relate, whatever the number of heads or their size. Nothing of size T × T is stored, forward or backward. The teacher
 * gets no gradient.
 * @param student f32 or f16 (B, T, Cs), Cs a multiple of 4 · heads.
 * @param teacher the dtype of `student`, (B, T, Ct), Ct a multiple of 4 · heads.
 * @returns f32 (B, heads, T), in nats.
 * @throws RangeError when the shapes do not fit.
 * @see Wang et al., MiniLMv2, 2020.
 */
export function relationKl<D extends FloatType>(
  step: Step,
  student: Tensor<D>,
  teacher: Tensor<D>,
  options: RelationOptions = {},
): Tensor<'f32'> {
  expectRank('relationKl', student, 'B, T, C', 3)
  const [batch, tokens, width] = student.shape
  const teacherWidth = teacher.shape[2]
  expectShape('relationKl', student, 'teacher', teacher, [batch, tokens, teacherWidth])
  const { heads = 1, causal = false } = options
  const fault = (reason: string) => new RangeError(`Cannot relationKl x ${showShape(student.shape)}: ${reason}`)
  if (!(Number.isInteger(heads) && heads >= 1)) throw fault(`there must be at least one relation head, got ${heads}`)
  for (const [whose, features] of [
    ['student', width],
    ['teacher', teacherWidth],
  ] as const)
    if (features % (4 * heads) !== 0)
      throw fault(`${features} features of the ${whose} do not make ${heads} heads of a multiple of 4`)

  const { scale = (width / heads) ** -0.5, teacherScale = (teacherWidth / heads) ** -0.5 } = options
  const params = {
    ...{ tokens, heads, student_quads: width / heads / 4, teacher_quads: teacherWidth / heads / 4 },
    ...{ student_scale: scale, teacher_scale: teacherScale, causal: causal ? 1 : 0 },
  }
  const pairs = batch * (causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens)
  const y = step.empty('f32', [batch, heads, tokens], 'relationKl')
  const stats = step.empty('f32', [batch, heads, tokens, 2], 'stats')
  const tiles = Math.ceil(tokens / rowsOfGroup)
  step.run(wgsl.forward, { student, teacher, y, stats }, params, {
    workgroups: [tiles, heads, batch],
    flops: 2 * (width + teacherWidth) * pairs,
  })
  return step.node('relationKl', y, [student], (dy) => {
    const dstudent = step.empty(student.dtype, student.shape, 'dstudent')
    step.run(wgsl.backward, { student, teacher, saved: stats, dy, dstudent }, params, {
      workgroups: [tiles * Math.ceil(width / heads / widest), heads, batch],
      flops: (4 * width + 2 * teacherWidth) * pairs,
    })
    return [dstudent]
  })
}

/** Rows of a workgroup, eight for each of its invocations, and the most features of a head that one sums. */
const rowsOfGroup = 64
const widest = 64
