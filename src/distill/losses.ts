import type { FloatType } from '../core/dtype.ts'
import { add } from '../kernels/add.ts'
import { log1p, mul, scale } from '../kernels/elementwise.ts'
import { headCrossEntropy, headDivergence, headTopKDivergence } from '../kernels/head-loss.ts'
import { linear } from '../kernels/matmul.ts'
import { sum } from '../kernels/reduce.ts'
import { relationKl } from '../kernels/relation-kl.ts'
import { squaredError } from '../kernels/row-distance.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { statesAt } from '../train/picked.ts'
import type { AnchorPlan } from './anchors.ts'
import { observed } from './capture.ts'
import { inputOf, type TermInputs, type Wanted } from './term-inputs.ts'

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
  /** What {@link wantedOf} names, of rows of a capture. */
  readonly inputs: TermInputs
  readonly anchors: AnchorPlan
  /** Projection matrices of the anchors, as the capture used them. */
  readonly bases: ReadonlyMap<string, Tensor<'f32'>>
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
  const { student, adapter, inputs, anchors, bases, teacher, anchored = true, checkpoint = false } = options
  const seen = new Map<string, Tensor<FloatType>>()
  const ids = inputOf(inputs, 'ids', 'u32')
  const observe = anchored
    ? { observe: (name: string, x: Tensor<FloatType>) => void seen.set(name, x) }
    : { checkpoint }
  const hidden = student.hidden(step, ids, { updates: adapter, ...observe })
  const beside = teacher && step.withoutGradients(() => observed(step, teacher, ids, anchored ? bases : new Map()))
  const output = outputTerm(step, options, hidden, beside?.hidden)
  if (!anchored) return { output }

  const teacherSays = (name: string) => beside?.seen.get(name) ?? inputOf(inputs, `anchor.${name}`, 'f32')
  const project = (x: Tensor<FloatType>, name: string) => linear(step, x as Tensor<'f32'>, bases.get(name)!)
  const shares = inputOf(inputs, 'anchored', 'f32')
  const meanOfTokens = (values: Tensor<'f32'>) => sum(step, mul(step, values, shares))
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
  return { output, activation, attention: meanOfTokens(step.reshape(relations, shares.shape)) }
}

/** What the terms read of rows whose capture holds the teacher's distribution or does not. */
export function wantedOf(
  { teacher, output, anchored = true }: Pick<TermsOptions, 'teacher' | 'output' | 'anchored'>,
  captured: boolean,
): Wanted {
  const targets = output === 'crossEntropy' || !(teacher || captured)
  return { targets, top: !targets && !teacher, anchors: anchored && !teacher }
}

/** The output's term, of the tokens that are trained alone: the others do not go through the head. */
function outputTerm(
  step: Step,
  { student, inputs, teacher, output: kind = 'forwardKl' }: TermsOptions,
  hidden: Tensor<FloatType>,
  teacherHidden: Tensor<FloatType> | undefined,
): Tensor<'f32'> {
  const places = inputOf(inputs, 'places', 'u32')
  const normed = student.normed(step, statesAt(step, hidden, places))
  const losses = () => {
    if (kind === 'crossEntropy' || inputs.has('targets'))
      return headCrossEntropy(step, normed, student.headWeight, inputOf(inputs, 'targets', 'u32'))
    if (teacherHidden) {
      const theirs = teacher!.normed(step, statesAt(step, teacherHidden, places))
      return headDivergence(step, normed, student.headWeight, { hidden: theirs, weight: teacher!.headWeight }, { kind })
    }
    const ids = inputOf(inputs, 'top.ids', 'u32')
    const probabilities = inputOf(inputs, 'top.probabilities', 'f32')
    return headTopKDivergence(step, normed, student.headWeight, ids, probabilities, { kind })
  }
  // The mean over the tokens that count, whose number is another in each step: a factor on the GPU.
  return mul(step, sum(step, mul(step, losses(), inputOf(inputs, 'counts', 'f32'))), inputOf(inputs, 'share', 'f32'))
}
