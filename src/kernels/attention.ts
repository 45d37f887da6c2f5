import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { attentionBackward, attention as wgsl } from './wgsl.gen.ts'

/** How {@link attention} looks. */
export interface AttentionOptions {
  /** Whether a query sees only keys up to its own position, the last query being at the last key; true unless told. */
  readonly causal?: boolean
  /** Factor of the scores; 1/√D unless told. */
  readonly scale?: number
  /** How many keys a query sees at most, its own among them; causal form only, all unless told. */
  readonly window?: number
  /**
   * u32 (B, T, 2): query t sees only keys j with `ranges[b, t, 0] ≤ j < ranges[b, t, 1]`, and of those only what causal
   * and window allow. {@link rangesOfLengths} makes it for padded rows, {@link rangesOfSegments} for packed ones. A
   * query without keys gives zeros, and passes no gradient on.
   */
  readonly ranges?: Tensor<'u32'>
}

/**
 * softmax(q · kᵀ · scale) · v with grouped heads; nothing of size T × S is stored, forward or backward.
 * @param q f32 or f16 (B, T, H, D), D a multiple of 4.
 * @param k the dtype of `q`, (B, S, G, D), H a multiple of G: H/G query heads share one key head.
 * @param v the dtype and shape of `k`.
 * @returns the dtype and shape of `q`.
 * @throws RangeError when the shapes or the window do not fit, or T > S in the causal form.
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
  const { causal = true, scale = headSize ** -0.5, window } = options
  expectShape('attention', q, 'k', k, [batch, keys, groups, headSize])
  expectShape('attention', q, 'v', v, k.shape)
  if (options.ranges) expectShape('attention', q, 'ranges', options.ranges, [batch, tokens, 2])
  const fault = (reason: string) => new RangeError(`Cannot attention x ${showShape(q.shape)}: ${reason}`)
  if (headSize % 4 !== 0) throw fault(`the head size must be a multiple of 4, got ${headSize}`)
  if (heads % groups !== 0) throw fault(`${heads} heads cannot share ${groups} key heads`)
  if (causal && tokens > keys) throw fault(`${tokens} queries cannot end at key ${keys}`)
  if (window !== undefined && !causal) throw fault('a window needs the causal form')
  if (window !== undefined && !(Number.isInteger(window) && window >= 1))
    throw fault(`the window must be a whole number of at least 1, got ${window}`)

  const share = heads / groups
  const workgroupsFor = (count: number) => Math.ceil(count / (each * lanes)) * Math.ceil(headSize / widest)
  const rows = tokens * share
  const params = {
    ...{ tokens, keys, groups, share, rows, quads: headSize / 4, scale },
    ...{ causal: causal ? 1 : 0, window: Math.min(window ?? keys, keys), ranged: options.ranges ? 1 : 0 },
  }
  const constants = { own: ownParts(headSize) }
  // The binding must hold something even where the shader never looks.
  const ranges = options.ranges ?? step.empty('u32', [2], 'no ranges')
  const pairs = batch * heads * (causal ? causalPairs(tokens, keys, params.window) : tokens * keys)
  const rowShape = [batch, groups, rows]
  const y = step.empty(q.dtype, q.shape, 'attention')
  const lse = step.empty('f32', rowShape, 'lse')
  step.run(wgsl.forward, { q, k, v, ranges, y, lse }, params, {
    workgroups: [workgroupsFor(rows), groups, batch],
    flops: 4 * headSize * pairs,
    constants,
  })

  return step.node('attention', y, [q, k, v], (dy) => {
    const known = step.empty('u32', [...rowShape, 4], 'known')
    step.run(attentionBackward.knownRows, { ranges, dy, y, lse, known }, params, {
      workgroups: [Math.ceil(rows / 64), groups, batch],
      flops: 2 * q.size,
    })
    const operands = { q, k, v, dy, saved: known }
    const dq = q.requiresGrad ? step.empty(q.dtype, q.shape, 'dq') : null
    if (dq)
      step.run(attentionBackward.backwardQ, { ...operands, dq }, params, {
        workgroups: [workgroupsFor(rows), groups, batch],
        flops: 6 * headSize * pairs,
        constants,
      })
    const dk = k.requiresGrad ? step.empty(k.dtype, k.shape, 'dk') : null
    const dv = v.requiresGrad ? step.empty(v.dtype, v.shape, 'dv') : null
    const workgroups = [workgroupsFor(keys), groups, batch]
    if (dk)
      step.run(attentionBackward.backwardK, { ...operands, dx: dk }, params, {
        workgroups,
        flops: 6 * headSize * pairs,
        constants,
      })
    if (dv) {
      const flops = 4 * headSize * pairs
      step.run(attentionBackward.backwardV, { q, k, dy, saved: known, dx: dv }, params, {
        workgroups,
        flops,
        constants,
      })
    }
    return [dq, dk, dv]
  })
}

/** Invocations of a workgroup, rows or keys of each, and the part of D that it sums: as in wgsl/lib/attention.wgsl. */
const lanes = 8
const each = 8
const widest = 64

/**
 * Parts of D, in fours, that an invocation sums: few sizes, because each is compiled by itself, and not more than needed,
 * because the memory for them is cleared in browsers.
 */
export function ownParts(headSize: number): number {
  return headSize <= 16 ? 4 : headSize <= 32 ? 8 : 16
}

/** Pairs of one head in which the query sees the key. */
function causalPairs(tokens: number, keys: number, window: number): number {
  const short = Math.max(0, Math.min(tokens, window - 1 - (keys - tokens))) // queries that see fewer than `window` keys
  return short * (keys - tokens) + (short * (short + 1)) / 2 + (tokens - short) * window
}

/**
 * Ranges for rows that are padded at one side: query t of row b sees the keys of its row's text.
 * @param lengths tokens of each row.
 * @param tokens T, padding and all.
 * @param side where the padding is; 'right' unless told.
 * @returns u32 (B, T, 2) for {@link AttentionOptions.ranges}.
 * @throws RangeError when a row is longer than T.
 */
export function rangesOfLengths(
  step: Step,
  lengths: readonly number[],
  tokens: number,
  side: 'left' | 'right' = 'right',
): Tensor<'u32'> {
  const values = lengths.flatMap((length) => {
    if (!(length >= 0 && length <= tokens))
      throw new RangeError(`Cannot mask a row of ${length} tokens: there are ${tokens}`)
    const start = side === 'left' ? tokens - length : 0
    return Array.from({ length: tokens }, () => [start, start + length]).flat()
  })
  return step.upload('u32', [lengths.length, tokens, 2], values, 'ranges')
}

/**
 * Ranges for packed rows: a token sees only the run of tokens around it that have its own id.
 * @param segments an id for every token, a list a row, all of one length.
 * @returns u32 (B, T, 2) for {@link AttentionOptions.ranges}.
 * @throws RangeError when the rows differ in length.
 */
export function rangesOfSegments(step: Step, segments: readonly (readonly number[])[]): Tensor<'u32'> {
  const tokens = segments[0].length
  const values = new Uint32Array(segments.length * tokens * 2)
  for (const [b, row] of segments.entries()) {
    if (row.length !== tokens) throw new RangeError(`Cannot pack rows of ${tokens} and ${row.length} tokens`)
    for (let begin = 0; begin < tokens; ) {
      let end = begin
      while (end < tokens && row[end] === row[begin]) end++
      for (let t = begin; t < end; t++) values.set([begin, end], (b * tokens + t) * 2)
      begin = end
    }
  }
  return step.upload('u32', [segments.length, tokens, 2], values, 'ranges')
}
