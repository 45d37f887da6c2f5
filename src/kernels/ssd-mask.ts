import type { FloatType } from '../core/dtype.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum } from './column-sum.ts'
import { ssdMask as wgsl } from './wgsl.gen.ts'

/**
 * Attention scores of a chunk under the mask of state-space duality:
 * scores[i, j] · exp(Σ_{j<k≤i} a d_k) · d_j for j ≤ i, else 0; `skip` is added to the diagonal.
 * @param scores f32 (B, chunks, G, Q, Q), Q at most 64.
 * @param d f32 (B, chunks, H, Q): step sizes, H a multiple of G.
 * @param prefix f32 (B, chunks, H, Q): the prefix sums of a · d, which carry the gradient of the decay.
 * @param a f32 or f16 (H): rates; they get no gradient here.
 * @param skip the dtype of `a`, (H).
 * @returns f32 (B, chunks, H, Q, Q).
 */
export function decayMask<D extends FloatType>(
  step: Step,
  scores: Tensor<'f32'>,
  d: Tensor<'f32'>,
  prefix: Tensor<'f32'>,
  a: Tensor<D>,
  skip?: Tensor<D>,
): Tensor<'f32'> {
  const [batch, chunks, heads, chunk] = d.shape
  const groups = scores.shape[2]
  const rows = batch * chunks * heads
  const params = { rows, heads, groups, chunk, has_skip: skip ? 1 : 0 }
  const y = step.empty('f32', [...d.shape, chunk], 'masked')
  const half = y.size / 2
  step.run(wgsl.mask, { scores, d, a, skip: skip ?? a, y }, params, { workgroups: grid(rows), flops: 5 * half })
  return step.node('decayMask', y, skip ? [scores, d, prefix, skip] : [scores, d, prefix], (dy) => {
    const dd = step.empty('f32', d.shape, 'dd')
    const dprefix = step.empty('f32', d.shape, 'dprefix')
    const traces = step.empty('f32', [batch * chunks, heads], 'traces')
    step.run(wgsl.maskBackwardDecay, { scores, d, a, dy, dd, dprefix, traces }, params, {
      workgroups: grid(rows),
      flops: 13 * half,
    })
    const dscores = step.empty('f32', scores.shape, 'dscores')
    step.run(wgsl.maskBackwardScores, { d, a, dy, dscores }, params, {
      workgroups: grid(batch * chunks * groups),
      flops: 6 * half,
    })
    return skip ? [dscores, dd, dprefix, columnSum(step, traces, skip.dtype)] : [dscores, dd, dprefix]
  })
}
