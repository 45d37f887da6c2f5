import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { ownParts } from './attention.ts'
import { attentionDecode as wgsl } from './wgsl.gen.ts'

/**
 * Keys and values of the tokens so far, in pages that rows share out among themselves. A contiguous cache (B, S, G, D)
 * is one with a page a row: `pageTable` of it is [[0], [1], …].
 */
export interface KvCache<D extends FloatType = FloatType> {
  /** (pages, page size, G, D), D a multiple of 4. */
  readonly k: Tensor<D>
  /** The dtype and shape of `k`. */
  readonly v: Tensor<D>
  /** u32 (B, P): the page that holds keys i · page size and on of each row. */
  readonly pageTable: Tensor<'u32'>
  /** u32 (B): keys of each row before the tokens that a step adds. {@link kvAppend} does not change it. */
  readonly position: Tensor<'u32'>
}

/** How {@link attentionDecode} looks. */
export interface AttentionDecodeOptions {
  /** Factor of the scores; 1/√D unless told. */
  readonly scale?: number
  /** How many keys a query sees at most, its own among them; all unless told. */
  readonly window?: number
}

/**
 * Writes the keys and values of new tokens into the cache, from `position` on. What would lie past the page table is
 * dropped, so the caller gives every row enough pages first.
 * @param k new keys, the dtype of the cache, (B, T, G, D).
 * @param v new values, as `k`.
 * @throws RangeError when the shapes do not fit.
 */
export function kvAppend<D extends FloatType>(step: Step, cache: KvCache<D>, k: Tensor<D>, v: Tensor<D>): void {
  expectRank('kvAppend', k, 'B, T, G, D', 4)
  const [batch, tokens, groups, headSize] = k.shape
  expectShape('kvAppend', k, 'v', v, k.shape)
  const { pageSize, keys } = checkCache('kvAppend', k, cache, batch, groups, headSize)
  const params = paramsOf(tokens, keys, groups, groups, headSize, 1, keys)
  const { pageTable: table, position } = cache
  const operands = { fresh_k: k, fresh_v: v, table, position, cache_k: cache.k, cache_v: cache.v }
  step.run(wgsl.append, operands, params, {
    workgroups: grid(Math.ceil(k.size / 4 / 64)),
    flops: 0,
    bytes: 4 * k.bytes,
    constants: { page_size: pageSize },
  })
}

/** Keys that one invocation walks: short enough to fill a GPU, long enough to be worth a partial result. */
const chunk = 64
const mostLanes = 8
const rowsEach = 8
const widest = 64

/**
 * softmax(q · kᵀ · scale) · v against a cache, split over its keys: for a few new tokens T after a long text. The cache
 * must hold the keys of these tokens already ({@link kvAppend}); token t of row b sees the keys up to position[b] + t.
 * There is no gradient.
 * @param q the dtype of the cache, (B, T, H, D), H a multiple of G.
 * @returns the dtype and shape of `q`.
 * @throws RangeError when the shapes do not fit.
 * @see Dao et al., Flash-Decoding, 2023; Kwon et al., PagedAttention, 2023.
 */
export function attentionDecode<D extends FloatType>(
  step: Step,
  q: Tensor<D>,
  cache: KvCache<D>,
  options: AttentionDecodeOptions = {},
): Tensor<D> {
  expectRank('attentionDecode', q, 'B, T, H, D', 4)
  expectRank('attentionDecode', cache.k, 'pages, page size, G, D', 4)
  const [batch, tokens, heads, headSize] = q.shape
  const groups = cache.k.shape[2]
  const { pageSize, keys } = checkCache('attentionDecode', q, cache, batch, groups, headSize)
  const { scale = headSize ** -0.5, window = keys } = options
  const fault = (reason: string) => new RangeError(`Cannot attentionDecode x ${showShape(q.shape)}: ${reason}`)
  if (heads % groups !== 0) throw fault(`${heads} heads cannot share ${groups} key heads`)
  if (!(Number.isInteger(window) && window >= 1))
    throw fault(`the window must be a whole number of at least 1, got ${window}`)

  const params = paramsOf(tokens, keys, heads, groups, headSize, scale, Math.min(window, keys))
  const { rows } = params
  const chunks = Math.ceil(keys / chunk)
  const partY = step.empty('f32', [batch, groups, rows, chunks, headSize], 'part_y')
  const partLse = step.empty('f32', [batch, groups, rows, chunks], 'part_lse')
  const { k, v, pageTable: table, position } = cache
  // How full the cache is stands on the GPU: what is counted is a full one.
  const lanes = Math.min(mostLanes, chunks)
  const constants = { page_size: pageSize, chunk, lanes, own: ownParts(headSize) }
  step.run(wgsl.partial, { q, k, v, table, position, part_y: partY, part_lse: partLse }, params, {
    workgroups: [Math.ceil(chunks / lanes) * Math.ceil(headSize / widest), groups * Math.ceil(rows / rowsEach), batch],
    flops: 4 * batch * tokens * heads * headSize * params.window,
    bytes: 2 * batch * params.window * groups * headSize * (k.bytes / k.size) + q.bytes + partY.bytes + partLse.bytes,
    constants,
  })
  const y = step.empty(q.dtype, q.shape, 'attentionDecode')
  step.run(wgsl.combine, { parts_y: partY, parts_lse: partLse, y }, params, {
    workgroups: [Math.ceil((rows * headSize) / 4 / 64), groups, batch],
    flops: 2 * partY.size,
    constants: { page_size: pageSize, chunk },
  })
  return step.node('attentionDecode', y, [q, k, v], 'none')
}

function paramsOf(
  tokens: number,
  keys: number,
  heads: number,
  groups: number,
  headSize: number,
  scale: number,
  window: number,
) {
  const share = heads / groups
  return {
    ...{ tokens, keys, groups, share, rows: tokens * share, quads: headSize / 4 },
    ...{ scale, causal: 1, window, ranged: 0 },
  }
}

function checkCache(op: string, x: Tensor, cache: KvCache, batch: number, groups: number, headSize: number) {
  const { k, v, pageTable, position } = cache
  expectRank(op, k, 'pages, page size, G, D', 4)
  const [pages, pageSize] = k.shape
  expectShape(op, x, 'the cache of keys', k, [pages, pageSize, groups, headSize])
  expectShape(op, x, 'the cache of values', v, k.shape)
  expectShape(op, x, 'position', position, [batch])
  expectRank(op, pageTable, 'B, pages of a row', 2)
  expectShape(op, x, 'pageTable', pageTable, [batch, pageTable.shape[1]])
  if (headSize % 4 !== 0)
    throw new RangeError(`Cannot ${op} x ${showShape(x.shape)}: the head size must be a multiple of 4, got ${headSize}`)
  return { pageSize, keys: pageSize * pageTable.shape[1] }
}
