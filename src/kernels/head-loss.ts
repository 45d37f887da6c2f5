import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, showShape } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { accumulate } from './centre.ts'
import { cast, copy } from './copy.ts'
import {
  crossEntropy,
  type DivergenceOptions,
  divergence,
  type TopKDivergenceOptions,
  topKDivergence,
} from './losses.ts'
import { linear } from './matmul.ts'

// Losses over the head of a language model without its logits: rows are taken in chunks, so that a chunk of logits fits
// a fixed number of bytes whatever the vocabulary is, and the backward pass makes each chunk again.

/** How much memory a loss over the head may take. */
export interface HeadLossOptions {
  /** Most bytes of one chunk of logits; 32 MiB unless told. A chunk never has fewer than 64 rows. */
  readonly chunkBytes?: number
}

/** Rows `begin` to `end` of all. */
export interface Chunk {
  readonly begin: number
  readonly end: number
}

/** Windows begin at multiples of 256 bytes: 64 numbers. */
const rowUnit = 64

/** Rows in chunks whose logits take at most `chunkBytes`. */
export function chunksOf(rows: number, rowBytes: number, chunkBytes: number): Chunk[] {
  const size = rowUnit * Math.max(1, Math.floor(chunkBytes / rowBytes / rowUnit))
  return Array.from({ length: Math.ceil(rows / size) }, (_, i) => ({
    begin: i * size,
    end: Math.min(rows, (i + 1) * size),
  }))
}

/**
 * A loss over hidden · weightᵀ, chunk by chunk. What fits one chunk is recorded as the plain ops.
 * @param loss the loss of each row of a chunk's logits, f32 (rows).
 */
function headLoss<D extends FloatType>(
  step: Step,
  label: string,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  { chunkBytes = 32 * 2 ** 20 }: HeadLossOptions,
  loss: (step: Step, logits: Tensor<D>, chunk: Chunk) => Tensor<'f32'>,
): Tensor<'f32'> {
  const { rows, columns } = rowsAndColumns(hidden.shape)
  if (weight.shape.length !== 2 || weight.shape[1] !== columns)
    throw new RangeError(`Cannot ${label} hidden ${showShape(hidden.shape)} with weight ${showShape(weight.shape)}`)
  const rowShape = hidden.shape.slice(0, -1)
  const flat = step.reshape(hidden, [rows, columns])
  const chunks = chunksOf(rows, (weight.shape[0] * hidden.bytes) / hidden.size, chunkBytes)
  if (chunks.length === 1) return step.reshape(loss(step, linear(step, flat, weight), chunks[0]), rowShape)

  const y = step.empty('f32', [rows], label)
  for (const chunk of chunks) {
    using inner = step.inner(label)
    inner.withoutGradients(() => {
      const logits = linear(inner, inner.rows(flat, chunk.begin, chunk.end), weight)
      copy(inner, loss(inner, logits, chunk), inner.rows(y, chunk.begin, chunk.end))
    })
  }
  const node = step.node(label, y, [flat, weight], (dy) => {
    const dhidden = step.empty(hidden.dtype, flat.shape, 'dhidden')
    // Sums over many chunks stay f32 until the end.
    const dweight = weight.requiresGrad ? step.filled('f32', weight.shape, 0, 'dweight') : undefined
    for (const { begin, end } of chunks) {
      using inner = step.inner(label)
      const x = inner.rows(flat, begin, end)
      x.requiresGrad = true
      const logits = linear(inner, x, weight)
      const gradients = inner.backward(loss(inner, logits, { begin, end }), { seed: inner.rows(dy, begin, end) })
      copy(inner, gradients.get(x), inner.rows(dhidden, begin, end))
      if (dweight) accumulate(inner, dweight, gradients.get(weight))
    }
    return [dhidden, dweight ? cast(step, dweight, weight.dtype) : null]
  })
  return step.reshape(node, rowShape)
}

/**
 * `crossEntropy(linear(hidden, weight), targets)` without the logits.
 * @param hidden f32 or f16 (…, C), after the final norm.
 * @param weight the dtype of `hidden`, or f16, (V, C).
 * @param targets u32 (…).
 * @returns f32 (…), in nats. Gradients go to `hidden` and, if it wants one, to `weight`.
 * @throws RangeError when the sizes do not fit.
 */
export function headCrossEntropy<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  targets: Tensor<'u32'>,
  options: HeadLossOptions = {},
): Tensor<'f32'> {
  expectShape('headCrossEntropy', hidden, 'targets', targets, hidden.shape.slice(0, -1))
  const flat = step.reshape(targets, [targets.size])
  return headLoss(step, 'headCrossEntropy', hidden, weight, options, (inner, logits, { begin, end }) =>
    crossEntropy(inner, logits, inner.rows(flat, begin, end)),
  )
}

/**
 * `divergence` of two heads without the logits of either.
 * @param hidden f32 or f16 (…, C), the student's, after its final norm.
 * @param weight the dtype of `hidden`, or f16, (V, C).
 * @param teacher.hidden the dtype of `hidden`, (…, C'), with the rows of `hidden`; it gets no gradient.
 * @param teacher.weight the dtype of `hidden`, or f16, (V, C').
 * @returns f32 (…), in nats.
 * @throws RangeError when the sizes do not fit.
 */
export function headDivergence<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  teacher: { readonly hidden: Tensor<D>; readonly weight: Tensor<D | 'f16'> },
  options: DivergenceOptions & HeadLossOptions = {},
): Tensor<'f32'> {
  expectShape('headDivergence', hidden, 'teacher', teacher.hidden, [
    ...hidden.shape.slice(0, -1),
    teacher.weight.shape[1],
  ])
  const flat = step.reshape(teacher.hidden, [teacher.hidden.size / teacher.weight.shape[1], teacher.weight.shape[1]])
  return headLoss(step, 'headDivergence', hidden, weight, options, (inner, logits, { begin, end }) => {
    const teacherLogits = inner.withoutGradients(() => linear(inner, inner.rows(flat, begin, end), teacher.weight))
    return divergence(inner, logits, teacherLogits, options)
  })
}

/**
 * `topKDivergence(linear(hidden, weight), ids, probabilities)` without the logits. Tokens sampled from the teacher are
 * the case without a tail: each distinct id with its share of the draws.
 * @param hidden f32 or f16 (…, C), after the final norm.
 * @param weight the dtype of `hidden`, or f16, (V, C).
 * @param ids u32 (…, k), k ≤ 64, the ids of a row all different.
 * @param probabilities the dtype of `hidden`, (…, k).
 * @returns f32 (…), in nats.
 * @throws RangeError when the sizes do not fit.
 */
export function headTopKDivergence<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  ids: Tensor<'u32'>,
  probabilities: Tensor<D>,
  options: HeadLossOptions & TopKDivergenceOptions = {},
): Tensor<'f32'> {
  const k = ids.shape.at(-1)!
  expectShape('headTopKDivergence', hidden, 'ids', ids, [...hidden.shape.slice(0, -1), k])
  expectShape('headTopKDivergence', hidden, 'probabilities', probabilities, ids.shape)
  const [flatIds, flatProbabilities] = [
    step.reshape(ids, [ids.size / k, k]),
    step.reshape(probabilities, [ids.size / k, k]),
  ]
  return headLoss(step, 'headTopKDivergence', hidden, weight, options, (inner, logits, { begin, end }) =>
    topKDivergence(inner, logits, inner.rows(flatIds, begin, end), inner.rows(flatProbabilities, begin, end), options),
  )
}
