import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { attention as wgsl } from './wgsl.gen.ts'

/** How {@link attention} looks. */
export interface AttentionOptions {
  /** Whether a query sees only keys up to its own position, the last query being at the last key; true unless told. */
  readonly causal?: boolean
  /** Factor of the scores; 1/√D unless told. */
  readonly scale?: number
  /**
   * u32 (B, T), the first key that each query sees, for rows that hold several sequences: where the query's own one
   * begins. It must be at most the query's position.
   */
  readonly starts?: Tensor<'u32'>
}

/**
 * softmax(q · kᵀ · scale) · v with grouped heads; nothing of size T × S is stored.
 * @param q f32 or f16 (B, T, H, D), D a multiple of 4.
 * @param k the dtype of `q`, (B, S, G, D), H a multiple of G: H/G query heads share one key head.
 * @param v the dtype and shape of `k`.
 * @returns the dtype and shape of `q`.
 * @throws RangeError when the shapes do not fit, or T > S in the causal form.
 * @see Dao et al., FlashAttention, 2022; Ainslie et al., GQA, 2023.
 */
export function attention<D extends FloatType>(
  step: Step,
  q: Tensor<D>,
  k: Tensor<D>,
  v: Tensor<D>,
  options: AttentionOptions = {},
): Tensor<D> {
  expectRank('attention', q, 'B, T, H, D', 4)
  expectRank('attention', k, 'B, S, G, D', 4)
  const [batch, tokens, heads, headSize] = q.shape
  const [, keys, groups] = k.shape
  const { causal = true, scale = headSize ** -0.5, starts } = options
  expectShape('attention', q, 'k', k, [batch, keys, groups, headSize])
  expectShape('attention', q, 'v', v, k.shape)
  const fault = (reason: string) => new RangeError(`Cannot attention x ${showShape(q.shape)}: ${reason}`)
  if (headSize % 4 !== 0) throw fault(`the head size must be a multiple of 4, got ${headSize}`)
  if (heads % groups !== 0) throw fault(`${heads} heads cannot share ${groups} key heads`)
  if (causal && tokens > keys) throw fault(`${tokens} queries cannot end at key ${keys}`)

  if (starts) expectShape('attention', q, 'starts', starts, [batch, tokens])

  const params = { tokens, keys, heads, groups, scale, causal: causal ? 1 : 0 }
  const constants = { head_size: headSize, is_packed: starts ? 1 : 0 }
  const pairs = batch * heads * (causal ? tokens * (keys - (tokens - 1) / 2) : tokens * keys)
  const y = step.empty(q.dtype, q.shape, 'attention')
  const lse = step.empty('f32', starts ? [batch, heads, tokens, 2] : [batch, heads, tokens], 'lse')
  const overQueries = [Math.ceil(tokens / 64), heads, batch]
  const dispatch = { workgroups: overQueries, flops: 4 * headSize * pairs, constants }
  if (starts) step.run(wgsl.forwardPacked, { q, k, v, y, lse, starts }, params, dispatch)
  else step.run(wgsl.forward, { q, k, v, y, lse }, params, dispatch)

  return step.node('attention', y, [q, k, v], (dy) => {
    const dq = step.empty(q.dtype, q.shape, 'dq')
    const dk = step.empty(k.dtype, k.shape, 'dk')
    const dv = step.empty(v.dtype, v.shape, 'dv')
    const delta = step.empty('f32', [batch, heads, tokens], 'delta')
    step.run(wgsl.backwardQ, { q, k, v, dy, logs: lse, out: y, dq, delta }, params, {
      workgroups: overQueries,
      flops: 6 * headSize * pairs,
      constants,
    })
    step.run(wgsl.backwardKv, { q, k, v, dy, logs: lse, deltas: delta, dk, dv }, params, {
      workgroups: [Math.ceil(keys / 64), groups, batch],
      flops: 8 * headSize * pairs,
      constants,
    })
    return [dq, dk, dv]
  })
}
