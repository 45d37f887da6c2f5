import type { FloatType } from '../core/dtype.ts'
import { type CpuTensor, toFloat32 } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { log1p, scale } from '../kernels/elementwise.ts'
import { headCrossEntropy, headDivergence, headTopKDivergence } from '../kernels/head-loss.ts'
import { linear } from '../kernels/matmul.ts'
import { relationKl } from '../kernels/relation-kl.ts'
import { squaredError } from '../kernels/row-distance.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Picked, pickScored, valuesAt } from '../train/picked.ts'
import type { AnchorPlan } from './anchors.ts'
import { observed } from './capture.ts'
import type { CaptureRows } from './capture-store.ts'

/** The terms of the loss of one capability, each f32 [1]. A term that the run does not have is absent. */
export interface AnchoredTerms {
  /**
   * KL between the teacher and the student, mean over the trained tokens; cross entropy with the text where the teacher's
   * distribution is not known or not used.
   */
  readonly output: Tensor<'f32'>
  /**
   * Cauchy loss log(1 + d), d being the squared distance to the teacher's whitened projection, mean over components;
   * mean over tokens and layers. A token whose state is huge, as an attention sink's is, cannot outvote the others.
   */
  readonly activation?: Tensor<'f32'>
  /** KL between the relations of projected queries, teacher to student, mean over tokens. */
  readonly attention?: Tensor<'f32'>
}

/** What the terms are taken between. */
export interface TermsOptions {
  readonly student: Decoder
  readonly adapter: LinearUpdates
  /** Rows of a capture. */
  readonly rows: CaptureRows
  readonly anchors: AnchorPlan
  /** Projection matrices of the anchors, as the capture used them. */
  readonly bases: ReadonlyMap<string, CpuTensor>
  /** A teacher beside the student, which gives what the capture does not hold. */
  readonly teacher?: Decoder
  /** What the student's output is compared with: forward KL unless told. */
  readonly output?: 'forwardKl' | 'reverseKl' | 'crossEntropy'
  /** Whether there are anchors; there are unless told. */
  readonly anchored?: boolean
  /** Computes layers again in the backward pass; there are no anchors then. */
  readonly checkpoint?: boolean
}

/**
 * The anchored loss of one capability on some rows of its capture.
 * @see Wang et al., MiniLMv2, 2020, for relations: they compare students and teachers of any number of heads.
 */
export function anchoredTerms(step: Step, options: TermsOptions): AnchoredTerms {
  const { student, adapter, rows, anchors, bases, teacher, anchored = true, checkpoint = false } = options
  const seen = new Map<string, Tensor<FloatType>>()
  const ids = step.upload('u32', [rows.rows, rows.tokens], idsOf(rows), 'ids')
  const observe = anchored
    ? { observe: (name: string, x: Tensor<FloatType>) => void seen.set(name, x) }
    : { checkpoint }
  const hidden = student.hidden(step, ids, { updates: adapter, ...observe })
  const beside = teacher && step.withoutGradients(() => observed(step, teacher, ids, anchored ? bases : new Map()))
  const output = outputTerm(step, options, hidden, beside?.hidden)
  if (!anchored) return { output }

  const teacherSays = (name: string): Tensor<'f32'> => {
    const known = beside?.seen.get(name)
    if (known) return known
    const { shape, values } = rows.columns.get(`anchor.${name}`)!
    return step.upload('f32', [rows.rows, ...shape], values, name)
  }
  const weights = anchoredTokens(rows)
  const counted = Math.max(
    1,
    weights.reduce((sum, weight) => sum + weight, 0),
  )
  const meanOfTokens = (values: Tensor<'f32'>) =>
    weightedMean(step, values, step.upload('f32', values.shape, weights, 'anchored'), counted)
  const project = (x: Tensor<FloatType>, name: string) => {
    const basis = bases.get(name)!
    return linear(step, x as Tensor<'f32'>, step.upload('f32', basis.shape, toFloat32(basis)))
  }
  const distances = anchors.outputs.map(({ layer, teacher: name }) => {
    const projected = project(seen.get(`${layer}.output`)!, name)
    return meanOfTokens(log1p(step, squaredError(step, projected, teacherSays(name))))
  })
  const activation = scale(
    step,
    distances.reduce((sum, term) => add(step, sum, term)),
    1 / distances.length,
  )

  const own = seen.get(`${student.config.layers - 1}.query`)!
  // Both by the whole query's width, so that a projection to fewer components does not sharpen the relations.
  const scaleOfBoth = own.shape[2] ** -0.5
  const relations = relationKl(step, project(own, anchors.query), teacherSays(anchors.query), {
    scale: scaleOfBoth,
    teacherScale: scaleOfBoth,
  })
  return { output, activation, attention: meanOfTokens(step.reshape(relations, [rows.rows, rows.tokens])) }
}

/**
 * 1 for tokens that are anchored, f32 (rows, tokens): not the first of a row, which models use as a sink of attention and
 * which says little of the text, and none behind the last that is trained, which are padding.
 */
function anchoredTokens({ rows, tokens, columns }: CaptureRows): Float32Array<ArrayBuffer> {
  const trained = columns.get('weights')!.values
  const anchored = new Float32Array(rows * tokens)
  for (let r = 0; r < rows; r++) {
    const last = trained.subarray(r * tokens, (r + 1) * tokens).findLastIndex((weight) => weight > 0)
    anchored.fill(1, r * tokens + 1, r * tokens + Math.max(1, last + 1))
  }
  return anchored
}

/** The output's term, of the tokens that are trained alone: the others do not go through the head. */
function outputTerm(
  step: Step,
  { student, rows, teacher, output: kind = 'forwardKl' }: TermsOptions,
  hidden: Tensor<FloatType>,
  teacherHidden: Tensor<FloatType> | undefined,
): Tensor<'f32'> {
  const weights = rows.columns.get('weights')!.values as Float32Array
  const picked = pickScored(step, hidden, weights)
  const n = picked.states.shape[0]
  const counts = step.upload('f32', [n], valuesAt(picked, weights, 1, 0), 'weights')
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const normed = student.normed(step, picked.states)
  const losses = () => {
    if (kind === 'crossEntropy' || !(teacherHidden || rows.columns.has('top.ids'))) {
      const targets = step.upload('u32', [n], valuesAt(picked, targetsOf(rows)), 'targets')
      return headCrossEntropy(step, normed, student.headWeight, targets)
    }
    if (teacherHidden) {
      const theirs = teacher!.normed(step, pickScored(step, teacherHidden, weights).states)
      return headDivergence(step, normed, student.headWeight, { hidden: theirs, weight: teacher!.headWeight }, { kind })
    }
    const ids = topTensor(step, 'u32', rows, 'top.ids', picked)
    const probabilities = topTensor(step, 'f32', rows, 'top.probabilities', picked)
    return headTopKDivergence(step, normed, student.headWeight, ids, probabilities, { kind })
  }
  return weightedMean(step, losses(), counts, total)
}

function topTensor<D extends 'f32' | 'u32'>(step: Step, dtype: D, rows: CaptureRows, name: string, picked: Picked) {
  const { shape, values } = rows.columns.get(name)!
  return step.upload(dtype, [picked.states.shape[0], shape[1]], valuesAt(picked, values, shape[1]), name)
}

/** Inputs of rows: all ids but the last of each. */
export function idsOf({ rows, tokens, columns }: CaptureRows): Uint32Array<ArrayBuffer> {
  const { values } = columns.get('ids')!
  return Uint32Array.from({ length: rows * tokens }, (_, i) => values[i + Math.floor(i / tokens)])
}

/** Targets of rows: all ids but the first of each. */
export function targetsOf({ rows, tokens, columns }: CaptureRows): Uint32Array<ArrayBuffer> {
  const { values } = columns.get('ids')!
  return Uint32Array.from({ length: rows * tokens }, (_, i) => values[i + Math.floor(i / tokens) + 1])
}
