import type { FloatType } from '../core/dtype.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum } from './column-sum.ts'
import { ssdChunks as wgsl } from './wgsl.gen.ts'

/** How a sequence is cut: `chunks` of `size` tokens, the last one filled up with zeros. */
export interface Chunking {
  readonly tokens: number
  readonly size: number
  readonly chunks: number
}

const each = (count: number) => grid(Math.ceil(count / 64))
/** Workgroups for the rows of `x`, four each. */
const fourRows = (x: Tensor) => grid(Math.ceil(x.size / x.shape.at(-1)! / 4))

/**
 * A sequence as one matrix a head of each chunk.
 * @param x f32 or f16 (B, T, H, P).
 * @returns f32 (B, chunks, H, Q, P), zero past the last token.
 */
export function splitChunks(step: Step, x: Tensor<FloatType>, cut: Chunking): Tensor<'f32'> {
  const [batch, , heads, width] = x.shape
  const chunked = step.empty('f32', [batch, cut.chunks, heads, cut.size, width], 'chunks')
  step.run(wgsl.split, { x, chunked }, paramsOf(chunked, cut), { workgroups: fourRows(chunked), flops: 0 })
  return step.node('splitChunks', chunked, [x], (dy) => [mergeChunks(step, dy, x.dtype, cut)])
}

/**
 * The inverse of {@link splitChunks}.
 * @param parts f32 (B, chunks, H, Q, P).
 * @param dtype of the result.
 * @returns (B, T, H, P).
 */
export function mergeChunks<D extends FloatType>(step: Step, parts: Tensor<'f32'>, dtype: D, cut: Chunking): Tensor<D> {
  const [batch, , heads, , width] = parts.shape
  const y = step.empty(dtype, [batch, cut.tokens, heads, width], 'merged')
  step.run(wgsl.merge, { parts, y }, paramsOf(parts, cut), { workgroups: fourRows(parts), flops: 0 })
  return step.node('mergeChunks', y, [parts], (dy) => [splitChunks(step, dy, cut)])
}

/**
 * Step sizes in chunks: dt + bias, or softplus of that; zero past the last token, so that nothing decays there.
 * @param dt f32 or f16 (B, T, H).
 * @param options.bias the dtype of `dt`, (H).
 * @returns f32 (B, chunks, H, Q).
 */
export function stepSizes<D extends FloatType>(
  step: Step,
  dt: Tensor<D>,
  { bias, softplus }: { bias?: Tensor<D>; softplus: boolean },
  cut: Chunking,
): Tensor<'f32'> {
  const [batch, , heads] = dt.shape
  const steps = step.empty('f32', [batch, cut.chunks, heads, cut.size], 'step sizes')
  const params = {
    ...{ size: steps.size, tokens: cut.tokens, heads, width: 1, chunk: cut.size, chunks: cut.chunks, suffix: 0 },
    ...{ softplus: softplus ? 1 : 0, has_bias: bias ? 1 : 0 },
  }
  const flops = (softplus ? 20 : 1) * steps.size
  const operands = { dt, bias: bias ?? dt }
  step.run(wgsl.stepSizes, { ...operands, steps }, params, { workgroups: each(steps.size), flops })
  return step.node('stepSizes', steps, bias ? [dt, bias] : [dt], (dsteps) => {
    const ddt = step.empty(dt.dtype, dt.shape, 'ddt')
    const sums = step.empty('f32', [batch * cut.chunks, heads], 'dbias of chunks')
    step.run(wgsl.stepSizesBackward, { ...operands, dsteps, ddt, sums }, params, {
      workgroups: each(sums.size),
      flops,
    })
    return bias ? [ddt, columnSum(step, sums, bias.dtype)] : [ddt]
  })
}

/**
 * Logarithmic decays over segments of a chunk: Σ a · d_j over j ≤ i, or over the j > i of the chunk for 'suffix'.
 * @param d f32 (B, chunks, H, Q): step sizes.
 * @param a f32 or f16 (H): rates.
 * @returns f32 (B, chunks, H, Q).
 */
export function segmentSums(
  step: Step,
  d: Tensor<'f32'>,
  a: Tensor<FloatType>,
  kind: 'prefix' | 'suffix',
): Tensor<'f32'> {
  const [batch, chunks, heads, chunk] = d.shape
  const segments = step.empty('f32', d.shape, kind)
  const params = {
    ...{ size: d.size, tokens: 0, heads, width: 1, chunk, chunks },
    ...{ softplus: 0, has_bias: 0, suffix: kind === 'suffix' ? 1 : 0 },
  }
  const sums = [batch * chunks, heads]
  const workgroups = each(batch * chunks * heads)
  step.run(wgsl.segmentSums, { d, a, segments }, params, { workgroups, flops: 2 * d.size })
  return step.node('segmentSums', segments, [d, a], (dsegments) => {
    const dd = step.empty('f32', d.shape, 'dd')
    const da = step.empty('f32', sums, 'da of chunks')
    step.run(wgsl.segmentSumsBackward, { d, a, dsegments, dd, sums: da }, params, { workgroups, flops: 4 * d.size })
    return [dd, columnSum(step, da, a.dtype)]
  })
}

function paramsOf(parts: Tensor, { tokens, size, chunks }: Chunking) {
  const [, , heads, , width] = parts.shape
  return { size: parts.size, tokens, heads, width, chunk: size, chunks, softplus: 0, has_bias: 0, suffix: 0 }
}
