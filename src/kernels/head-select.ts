import type { FloatType } from '../core/dtype.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { chunksOf, type HeadLossOptions } from './head-loss.ts'
import { linear } from './matmul.ts'
import { sample, topK } from './select.ts'
import { softmax } from './softmax.ts'

// What is kept of a language model's distribution, chosen chunk by chunk: logits of all tokens are never there at once.

/**
 * The `k` likeliest tokens of softmax(hidden · weightᵀ), likeliest first, with their probabilities.
 * @param hidden f32 or f16 (…, C), after the final norm.
 * @param weight the dtype of `hidden`, or f16, (V, C).
 * @returns `ids` u32 (rows, k) and `probabilities` (rows, k) in the dtype of `hidden`. They have no gradient.
 * @throws RangeError when k is not 1 to V.
 */
export function headTopK<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  k: number,
  options: HeadLossOptions = {},
): { ids: Tensor<'u32'>; probabilities: Tensor<D> } {
  const rows = hidden.size / hidden.shape.at(-1)!
  const ids = step.empty('u32', [rows, k], 'ids')
  const probabilities = step.empty(hidden.dtype, [rows, k], 'probabilities')
  eachChunk(step, 'headTopK', hidden, weight, options, (inner, logits, begin, end) => {
    const into = { indices: inner.rows(ids, begin, end), values: inner.rows(probabilities, begin, end) }
    topK(inner, softmax(inner, logits), k, into)
  })
  return { ids, probabilities }
}

/**
 * The likeliest token of each row of hidden · weightᵀ; ties go to the smaller index.
 * @param hidden f32 or f16 (…, C), after the final norm.
 * @param weight the dtype of `hidden`, (V, C).
 * @returns u32 (rows). It has no gradient.
 */
export function headArgmax<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D>,
  options: HeadLossOptions = {},
): Tensor<'u32'> {
  const rows = hidden.size / hidden.shape.at(-1)!
  const ids = step.empty('u32', [rows, 1], 'ids')
  eachChunk(step, 'headArgmax', hidden, weight, options, (inner, logits, begin, end) => {
    const values = inner.empty(logits.dtype, [end - begin, 1], 'values')
    topK(inner, logits, 1, { indices: inner.rows(ids, begin, end), values })
  })
  return step.reshape(ids, [rows])
}

/**
 * `draws` tokens a row drawn from softmax(hidden · weightᵀ), each independent of the others.
 * @param hidden f32 or f16 (…, C), after the final norm.
 * @param weight the dtype of `hidden`, or f16, (V, C).
 * @param seed an integer below 2^16; use another one for every batch.
 * @returns u32 (rows) for each draw. They have no gradient.
 */
export function headSamples<D extends FloatType>(
  step: Step,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  { draws, seed, ...options }: HeadLossOptions & { draws: number; seed: number },
): Tensor<'u32'>[] {
  const rows = hidden.size / hidden.shape.at(-1)!
  const drawn = Array.from({ length: draws }, () => step.empty('u32', [rows], 'draw'))
  eachChunk(step, 'headSamples', hidden, weight, options, (inner, logits, begin, end) => {
    // A chunk has noise of its own, or its rows would repeat the draws of the first chunk's.
    for (const [i, ids] of drawn.entries())
      sample(inner, logits, { seed: (seed * 65_537 + begin * draws + i) >>> 0, into: inner.rows(ids, begin, end) })
  })
  return drawn
}

function eachChunk<D extends FloatType>(
  step: Step,
  label: string,
  hidden: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  { chunkBytes = 32 * 2 ** 20 }: HeadLossOptions,
  work: (inner: Step, logits: Tensor<D>, begin: number, end: number) => void,
): void {
  const columns = hidden.shape.at(-1)!
  const rows = hidden.size / columns
  const flat = step.reshape(hidden, [rows, columns])
  for (const { begin, end } of chunksOf(rows, (weight.shape[0] * hidden.bytes) / hidden.size, chunkBytes)) {
    using inner = step.inner(label)
    inner.withoutGradients(() => work(inner, linear(inner, inner.rows(flat, begin, end), weight), begin, end))
  }
}
