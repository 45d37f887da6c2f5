import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { ssdStates as wgsl } from './wgsl.gen.ts'

/** Workgroups for the rows of `x`, four each. */
const fourRows = (x: Tensor) => grid(Math.ceil(x.size / x.shape.at(-1)! / 4))

/**
 * The rows of a chunk, decayed for each head: x[i] · exp(segments[i]), times d[i] where `d` is given.
 * @param x f32 (B, chunks, G, Q, N): one matrix a group of heads.
 * @param segments f32 (B, chunks, H, Q), none positive; H a multiple of G.
 * @param d f32, the shape of `segments`.
 * @returns f32 (B, chunks, H, Q, N).
 */
export function decayRows(step: Step, x: Tensor<'f32'>, segments: Tensor<'f32'>, d?: Tensor<'f32'>): Tensor<'f32'> {
  const [, chunks, heads, chunk] = segments.shape
  const [, , groups, , width] = x.shape
  const y = step.empty('f32', [...segments.shape, width], 'decayed')
  const params = {
    ...{ size: y.size, heads, groups, chunk, chunks, width, cells: 1 },
    ...{ has_steps: d ? 1 : 0, has_state: 0 },
  }
  const operands = { x, segments, d: d ?? segments }
  step.run(wgsl.decay, { ...operands, y }, params, { workgroups: fourRows(y), flops: 3 * y.size })
  return step.node('decayRows', y, d ? [x, segments, d] : [x, segments], (dy) => {
    const dx = step.empty('f32', x.shape, 'dx')
    step.run(wgsl.decayBackwardX, { segments, d: d ?? segments, dy, dx }, params, {
      workgroups: fourRows(x),
      flops: 4 * y.size,
    })
    const dsegments = step.empty('f32', segments.shape, 'dsegments')
    const dd = step.empty('f32', d ? d.shape : [1], 'dd')
    step.run(wgsl.decayBackwardRows, { ...operands, dy, dsegments, dd }, params, {
      workgroups: grid(Math.ceil(segments.size / 64)),
      flops: 2 * y.size,
    })
    return d ? [dx, dsegments, dd] : [dx, dsegments]
  })
}

/**
 * The state before each chunk, from what every chunk adds to it: before[k + 1] = exp(e_k) · before[k] + own[k], e_k being
 * the last prefix sum of chunk k.
 * @param own f32 (B, chunks, H, …).
 * @param prefix f32 (B, chunks, H, Q).
 * @param state f32 (B, H, …): the state before the first chunk, overwritten with that after the last; zero, and not
 *   kept, unless told. It is a constant for the gradients.
 * @returns f32, the shape of `own`.
 */
export function carryStates(
  step: Step,
  own: Tensor<'f32'>,
  prefix: Tensor<'f32'>,
  state?: Tensor<'f32'>,
): Tensor<'f32'> {
  const [batch, chunks, heads, chunk] = prefix.shape
  const matrices = batch * chunks * heads
  const cells = own.size / matrices
  const params = {
    ...{ size: own.size, heads, groups: heads, chunk, chunks, width: 1, cells },
    ...{ has_steps: 0, has_state: state ? 1 : 0 },
  }
  const before = step.empty('f32', own.shape, 'before')
  const layout = { workgroups: [Math.ceil(cells / 64), heads, batch], flops: 2 * own.size }
  const kept = state ?? step.empty('f32', [1], 'no state')
  step.run(wgsl.carry, { own, segments: prefix, before, state: kept }, params, layout)
  return step.node('carryStates', before, [own, prefix], (dbefore) => {
    const down = step.empty('f32', own.shape, 'down')
    step.run(wgsl.carryBackward, { dbefore, segments: prefix, down }, params, layout)
    const dprefix = step.empty('f32', prefix.shape, 'dprefix')
    const operands = { down_saved: down, before_saved: before, segments: prefix, dprefix }
    step.run(wgsl.carryBackwardPrefix, operands, params, { workgroups: grid(matrices), flops: 2 * own.size })
    return [down, dprefix]
  })
}
