import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, showShape } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { scale } from './elementwise.ts'
import { inParts, rowDispatch } from './parts.ts'
import {
  crossEntropyQuads,
  crossEntropy as crossEntropySingle,
  divergenceQuads,
  divergence as divergenceSingle,
  topKDivergenceQuads,
  topKDivergence as topKDivergenceSingle,
} from './wgsl.gen.ts'

// Losses give one number a row; `weightedMean` (weighted-mean.ts) makes one number of them.

/**
 * −log softmax(logits)[target] for each row, with an f32 log-sum-exp.
 * @param logits f32 or f16 (…, V).
 * @param targets u32 (…); a target of V or more gives NaN.
 * @returns f32 (…), in nats.
 * @throws RangeError when there is not one target a row.
 */
export function crossEntropy(step: Step, logits: Tensor<FloatType>, targets: Tensor<'u32'>): Tensor<'f32'> {
  const { rows, columns } = rowsAndColumns(logits.shape)
  const rowShape = logits.shape.slice(0, -1)
  expectShape('crossEntropy', logits, 'targets', targets, rowShape)
  const { wgsl, width } = inParts(crossEntropySingle, crossEntropyQuads, columns)
  const params = { rows, columns: columns / width }
  const dispatch = rowDispatch(step.gpu, rows, params.columns, 4 * logits.size)
  const y = step.empty('f32', rowShape, 'crossEntropy')
  const lse = step.empty('f32', rowShape, 'lse')
  step.run(wgsl.forward, { logits, targets, y, lse }, params, dispatch)
  return step.node('crossEntropy', y, [logits], (dy) => {
    const dlogits = step.empty(logits.dtype, logits.shape, 'dlogits')
    step.run(wgsl.backward, { logits, targets, dy, logs: lse, dlogits }, params, dispatch)
    return [dlogits]
  })
}

const kinds = { forwardKl: 0, reverseKl: 1, jsd: 2, skewedKl: 3, skewedReverseKl: 4 } as const

/** Which divergence, and how it is softened. */
export interface DivergenceOptions {
  /**
   * `forwardKl` KL(t‖q), `reverseKl` KL(q‖t), `jsd` the generalised Jensen-Shannon divergence of GKD, `skewedKl` and
   * `skewedReverseKl` those of DistiLLM. Forward KL unless told.
   */
  readonly kind?: keyof typeof kinds
  /** β of the JSD (0 and 1 give the full KLs, forward and reverse), the skew λ of the skewed forms; 0.1 unless told. */
  readonly weight?: number
  /** Divides both sets of logits; the result is multiplied by its square. 1 unless told. */
  readonly temperature?: number
}

/**
 * A divergence between softmax(student) and softmax(teacher) for each row. The teacher gets no gradient.
 * @param student f32 or f16 (…, V), logits.
 * @param teacher the dtype and shape of `student`, logits.
 * @returns f32 (…), in nats.
 * @throws RangeError when the shapes differ or a number is out of range.
 * @see Agarwal et al., On-Policy Distillation (GKD), 2023; Ko et al., DistiLLM, 2024; Hinton et al., 2015 for T².
 */
export function divergence<D extends FloatType>(
  step: Step,
  student: Tensor<D>,
  teacher: Tensor<D>,
  options: DivergenceOptions = {},
): Tensor<'f32'> {
  const { weight = 0.1, temperature = 1 } = options
  expectShape('divergence', student, 'teacher', teacher, student.shape)
  if (!(temperature > 0)) throw new RangeError(`Cannot take a divergence at temperature ${temperature}: it must be > 0`)
  if (!(weight >= 0 && weight <= 1)) throw new RangeError(`Cannot take a divergence with weight ${weight}: give 0 to 1`)
  let { kind = 'forwardKl' } = options
  if (kind === 'jsd' && weight === 0) kind = 'forwardKl'
  if (kind === 'jsd' && weight === 1) kind = 'reverseKl'

  const { rows: count, columns } = rowsAndColumns(student.shape)
  const { wgsl, width } = inParts(divergenceSingle, divergenceQuads, columns)
  const params = { rows: count, columns: columns / width, temperature, weight }
  const dispatch = (flops: number) => {
    const { constants, ...rest } = rowDispatch(step.gpu, count, params.columns, flops * student.size)
    return { ...rest, constants: { ...constants, kind: kinds[kind] } }
  }
  const y = step.empty('f32', student.shape.slice(0, -1), kind)
  const lse = step.empty('f32', [count, 2], 'lse')
  step.run(wgsl.forward, { student, teacher, y, lse }, params, dispatch(12))
  const rows = step.node(kind, y, [student], (dy) => {
    const dstudent = step.empty(student.dtype, student.shape, 'dstudent')
    step.run(wgsl.backward, { student, teacher, dy, logs: lse, dstudent }, params, dispatch(10))
    return [dstudent]
  })
  return temperature === 1 ? rows : scale(step, rows, temperature ** 2)
}

/** Which way a {@link topKDivergence} is taken: KL(t‖q) unless told. */
export interface TopKDivergenceOptions {
  readonly kind?: 'forwardKl' | 'reverseKl'
}

/**
 * KL from a teacher known by its k likeliest tokens: forward Σ t log(t/q), reverse Σ q log(q/t) over them, and one term
 * for all others. In reverse a token or tail that the teacher gives less than 1e-6 counts as 1e-6.
 * @param student f32 or f16 (…, V), logits.
 * @param ids u32 (…, k), k ≤ 64, the ids of a row all different.
 * @param probabilities the dtype of `student`, (…, k): what the teacher gives them; what is missing to 1 is the tail.
 * @returns f32 (…), in nats; it has no gradient for the teacher.
 * @throws RangeError when the rows differ or k > 64.
 */
export function topKDivergence<D extends FloatType>(
  step: Step,
  student: Tensor<D>,
  ids: Tensor<'u32'>,
  probabilities: Tensor<D>,
  { kind = 'forwardKl' }: TopKDivergenceOptions = {},
): Tensor<'f32'> {
  const { rows, columns } = rowsAndColumns(student.shape)
  const k = ids.shape.at(-1)!
  if (k > 64 || k > columns)
    throw new RangeError(
      `Cannot topKDivergence student ${showShape(student.shape)}: k must be at most ${Math.min(64, columns)}, got ${k}`,
    )
  expectShape('topKDivergence', student, 'ids', ids, [...student.shape.slice(0, -1), k])
  expectShape('topKDivergence', student, 'probabilities', probabilities, ids.shape)
  const { wgsl, width } = inParts(topKDivergenceSingle, topKDivergenceQuads, columns)
  const params = { rows, columns: columns / width, k }
  const { constants: rowConstants, ...dealt } = rowDispatch(
    step.gpu,
    rows,
    params.columns,
    4 * student.size + 8 * ids.size,
  )
  const reverse = kind === 'reverseKl' ? 1 : 0
  const dispatch = { ...dealt, constants: { ...rowConstants, reverse } }
  const y = step.empty('f32', student.shape.slice(0, -1), 'topKDivergence')
  const looks = step.empty('f32', [rows, 3], 'looks')
  step.run(wgsl.forward, { student, ids, probabilities, y, looks }, params, dispatch)
  return step.node('topKDivergence', y, [student], (dy) => {
    const dstudent = step.empty(student.dtype, student.shape, 'dstudent')
    step.run(wgsl.backward, { student, dy, seen: looks, dstudent }, params, dispatch)
    const known = { logits: student, ids, probabilities, dy, seen: looks, dlogits: dstudent }
    step.run(wgsl.backwardKnown, known, params, {
      workgroups: grid(Math.ceil(ids.size / 64)),
      constants: { reverse },
      flops: 5 * ids.size,
      bytes: ids.bytes + 3 * probabilities.bytes,
    })
    return [dstudent]
  })
}
