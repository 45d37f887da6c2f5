import type { FloatType } from '../core/dtype.ts'
import { type CpuTensor, toFloat32 } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { scale } from '../kernels/elementwise.ts'
import { topKDivergence } from '../kernels/losses.ts'
import { linear } from '../kernels/matmul.ts'
import { mean } from '../kernels/reduce.ts'
import { relationKl } from '../kernels/relation-kl.ts'
import { mse } from '../kernels/row-distance.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { AnchorPlan, Capture } from './capture.ts'

/** The three terms of the loss of one capability, each f32 [1]. */
export interface AnchoredTerms {
  /** KL of the teacher's likeliest tokens and their tail to the student, mean over the trained tokens. */
  readonly output: Tensor<'f32'>
  /** Squared distance to the teacher's whitened projections, mean over components, tokens and layers. */
  readonly activation: Tensor<'f32'>
  /** KL between the relations of queries, teacher to student, mean over tokens. */
  readonly attention: Tensor<'f32'>
}

/**
 * The anchored loss of one capability on some rows of its capture.
 * @param bases projection matrices of the anchors, as the capture used them.
 * @see Wang et al., MiniLMv2, 2020, for relations: they compare students and teachers of any number of heads.
 */
export function anchoredTerms(
  step: Step,
  student: Decoder,
  adapter: LinearUpdates,
  capture: Capture,
  rows: readonly number[],
  anchors: AnchorPlan,
  bases: ReadonlyMap<string, CpuTensor>,
): AnchoredTerms {
  const seen = new Map<string, Tensor<FloatType>>()
  const ids = take(step, capture, 'ids', rows, 'u32')
  const logits = student.forward(step, ids, { updates: adapter, observe: (name, x) => seen.set(name, x) })
  const weights = rowsOf(capture, 'weights', rows)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const kl = topKDivergence(
    step,
    logits,
    take(step, capture, 'top.ids', rows, 'u32'),
    take(step, capture, 'top.probabilities', rows, 'f32'),
  )
  const output = weightedMean(step, kl, step.upload('f32', ids.shape, weights), total)

  const distances = anchors.outputs.map((name, layer) => {
    const basis = bases.get(name)!
    const projected = linear(step, seen.get(`${layer}.output`)!, step.upload('f32', basis.shape, toFloat32(basis)))
    return mse(step, projected, take(step, capture, `anchor.${name}`, rows, 'f32'))
  })
  const activation = scale(
    step,
    distances.reduce((sum, term) => add(step, sum, term)),
    1 / distances.length,
  )

  const own = seen.get(`${anchors.kept.length - 1}.query`)!
  const teacherQuery = take(step, capture, `anchor.${anchors.query}`, rows, 'f32')
  // Both by the student's width, so that the teacher's projection to fewer components does not sharpen its relations.
  const scaleOfBoth = own.shape[2] ** -0.5
  const relations = relationKl(step, own as Tensor<'f32'>, teacherQuery, {
    scale: scaleOfBoth,
    teacherScale: scaleOfBoth,
  })
  const attention = mean(step, relations)
  return { output, activation, attention }
}

function rowsOf(capture: Capture, name: string, rows: readonly number[]): Float32Array<ArrayBuffer> {
  const { width, values } = capture.columns.get(name)!
  const each = capture.tokens * width
  const out = new Float32Array(rows.length * each)
  for (const [i, row] of rows.entries()) out.set(values.subarray(row * each, (row + 1) * each), i * each)
  return out
}

function take<D extends 'f32' | 'u32'>(
  step: Step,
  capture: Capture,
  name: string,
  rows: readonly number[],
  dtype: D,
): Tensor<D> {
  const { width } = capture.columns.get(name)!
  const shape = width === 1 ? [rows.length, capture.tokens] : [rows.length, capture.tokens, width]
  return step.upload(dtype, shape, rowsOf(capture, name, rows), name)
}
