import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { fitsThin, thinGradient } from './thin-products.ts'
import { loraBatch as wgsl } from './wgsl.gen.ts'

/** The id of a row without an adapter. */
export const noAdapter = 0xffff_ffff

/** Low-rank updates of one layer (N, K) by several adapters, their ranks filled up with zeros to the largest. */
export interface LoraStack<D extends FloatType = FloatType> {
  /** (count, R, K) */
  readonly a: Tensor<D>
  /** (count, N, R) */
  readonly b: Tensor<D>
  /** f32 (count): the factor of each adapter's update. */
  readonly factors: Tensor<'f32'>
}

/** One adapter's update of a layer (N, K), on the host. */
export interface HostLoraPair {
  readonly rank: number
  /** (R, K) */
  readonly a: ArrayLike<number>
  /** (N, R) */
  readonly b: ArrayLike<number>
  readonly scale: number
}

/**
 * Puts the updates of several adapters on the GPU as one stack; ranks may differ.
 * @param shape (N, K) of the layer.
 * @throws RangeError when a pair does not fit the layer, or there is none.
 */
export function uploadLoraStack<D extends FloatType>(
  scope: Scope,
  dtype: D,
  [n, k]: readonly [number, number],
  pairs: readonly HostLoraPair[],
): LoraStack<D> {
  if (pairs.length === 0) throw new RangeError('Cannot uploadLoraStack of no adapters')
  const rank = Math.ceil(Math.max(...pairs.map((pair) => pair.rank)) / 4) * 4
  const a = new Float32Array(pairs.length * rank * k)
  const b = new Float32Array(pairs.length * n * rank)
  for (const [i, pair] of pairs.entries()) {
    if (pair.a.length !== pair.rank * k || pair.b.length !== n * pair.rank)
      throw new RangeError(
        `Cannot uploadLoraStack adapter ${i} of rank ${pair.rank}: a layer [${n},${k}] needs ${pair.rank * k} and ` +
          `${n * pair.rank} numbers, got ${pair.a.length} and ${pair.b.length}`,
      )
    a.set(Float32Array.from(pair.a), i * rank * k)
    for (let row = 0; row < n; row++)
      for (let r = 0; r < pair.rank; r++) b[(i * n + row) * rank + r] = pair.b[row * pair.rank + r]
  }
  return {
    a: scope.upload(dtype, [pairs.length, rank, k], a, 'lora stack a'),
    b: scope.upload(dtype, [pairs.length, n, rank], b, 'lora stack b'),
    factors: scope.upload(
      'f32',
      [pairs.length],
      pairs.map((pair) => pair.scale),
      'lora stack factors',
    ),
  }
}

/**
 * base + scale[id] · (x · a[id]ᵀ) · b[id]ᵀ, every row with the adapter that its id names: several adapters in one batch.
 * Replaces a `lora` for each adapter over its own rows.
 * @param base f32 or f16 (…, N): the layer's own output for `x`.
 * @param x the dtype of `base`, (…, K).
 * @param ids u32: one for each row of `x`, or for as many rows that follow each other as the sizes say, so that (B) names
 *   the adapters of sequences (B, T, K). {@link noAdapter}, or any id that the stack lacks, leaves its rows as they are.
 * @returns the dtype and shape of `base`. Its gradients are leaves: they cannot be differentiated again.
 * @throws RangeError when the sizes do not fit, or K, N or the rank is no multiple of four.
 * @see Chen et al., Punica: Multi-Tenant LoRA Serving, 2023, section 4.
 */
export function loraBatch<D extends FloatType>(
  step: Step,
  base: Tensor<D>,
  x: Tensor<D>,
  { a, b, factors }: LoraStack<D>,
  ids: Tensor<'u32'>,
): Tensor<D> {
  const [count, rank, k] = a.shape
  const n = base.shape.at(-1)!
  const m = x.size / x.shape.at(-1)!
  expectShape('loraBatch', x, 'a', a, [count, rank, x.shape.at(-1)!])
  expectShape('loraBatch', x, 'b', b, [count, n, rank])
  expectShape('loraBatch', x, 'factors', factors, [count])
  expectShape('loraBatch', x, 'base', base, [...x.shape.slice(0, -1), n])
  if (m % ids.size !== 0)
    throw new RangeError(
      `Cannot loraBatch x ${showShape(x.shape)}: its ${m} rows cannot be shared out among ${ids.size} ids`,
    )
  if (!fitsThin(n, k, rank))
    throw new RangeError(
      `Cannot loraBatch x ${showShape(x.shape)}: K, N and the rank must be multiples of 4, got ${k}, ${n} and ${rank}`,
    )
  const span = m / ids.size
  const shared = { m, rank, count, span }
  const narrow = (form: 'nt' | 'nn', values: Tensor<D>) => {
    const [wide, pairs] = form === 'nt' ? [k, a] : [n, b]
    const sums = step.empty('f32', [m, rank], 'thin')
    const entry = form === 'nt' ? wgsl.narrowNt : wgsl.backwardNarrow
    const dispatch = { workgroups: grid((m * rank) / 4), flops: 2 * m * wide * rank }
    step.run(entry, { ids, pairs, factors, x: values, sums }, { ...shared, wide }, dispatch)
    return sums
  }
  const thin = narrow('nt', x)
  const y = step.empty(base.dtype, base.shape, 'loraBatch')
  const flops = 2 * y.size * rank
  const dispatch = { workgroups: grid(Math.ceil(y.size / 256)), flops }
  step.run(wgsl.widenNt, { ids, pairs: b, thin, base, y }, { ...shared, wide: n }, dispatch)

  return step.node('loraBatch', y, [base, x, a, b], (dy) => {
    const rows = { ids, count, span }
    const slope = x.requiresGrad || a.requiresGrad ? narrow('nn', dy) : null
    const dx = x.requiresGrad ? step.empty(x.dtype, x.shape, 'dx') : null
    if (dx) {
      const backward = { workgroups: grid(Math.ceil(dx.size / 256)), flops: 2 * dx.size * rank }
      step.run(wgsl.backwardWiden, { ids, pairs: a, thin: slope!, y: dx }, { ...shared, wide: k }, backward)
    }
    return [
      dy,
      dx,
      a.requiresGrad ? thinGradient(step, slope!, x, { rows }) : null,
      b.requiresGrad ? thinGradient(step, thin, dy, { transposed: true, rows }) : null,
    ]
  })
}
