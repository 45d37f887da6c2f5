import type { FloatType } from '../core/dtype.ts'
import type { Shape } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum } from './column-sum.ts'
import { loraGradient, lora as wgsl } from './wgsl.gen.ts'

/** Whether the kernels of low-rank updates can run along all of `sizes`: multiples of four. */
export function fitsThin(...sizes: number[]): boolean {
  return sizes.every((size) => size % 4 === 0)
}

const enoughWorkgroups = 32

/** Into how many slices a sum over `length` is cut, so that a thin result still occupies a GPU. */
function slicesFor(workgroups: number, length: number, least: number): number {
  return Math.max(1, Math.min(Math.ceil(enoughWorkgroups / workgroups), Math.floor(length / least)))
}

/**
 * factor · x · pairᵀ (`nt`, pair is (R, K)) or factor · x · pair (`nn`, pair is (N, R)); not on the tape.
 * @param x f32 or f16 (…, K) or (…, N); these and R are multiples of four.
 * @returns f32 (M, R), whatever the storage of `x`.
 */
export function narrow<D extends FloatType>(
  step: Step,
  form: 'nt' | 'nn',
  x: Tensor<D>,
  pair: Tensor<D>,
  factor: number,
): Tensor<'f32'> {
  const [wide, rank] = form === 'nt' ? [pair.shape[1], pair.shape[0]] : pair.shape
  const m = x.size / wide
  const workgroups = Math.ceil((Math.ceil(m / 8) * (rank / 4)) / 64)
  const slices = slicesFor(workgroups, wide, 128)
  const sums = step.empty('f32', [slices, m * rank], 'thin')
  const each = Math.ceil(wide / 4 / slices)
  const entry = form === 'nt' ? wgsl.narrowNt : wgsl.backwardNarrow
  const params = { m, rank, wide, each, factor }
  step.run(entry, { x, pair, sums }, params, {
    ...{ workgroups: [...grid(workgroups), slices], flops: 2 * x.size * rank },
  })
  return step.reshape(slices === 1 ? sums : columnSum(step, sums, 'f32'), [m, rank])
}

/**
 * base + thin · pairᵀ (`nt`, pair is (N, R)) or base + thin · pair (`nn`, pair is (R, K)); not on the tape.
 * @param thin f32 (M, R)
 * @param shape of the result: (…, N) or (…, K).
 * @param base of that shape; nothing is added without it.
 */
export function widen<D extends FloatType>(
  step: Step,
  form: 'nt' | 'nn',
  thin: Tensor<'f32'>,
  pair: Tensor<D>,
  shape: Shape,
  base?: Tensor<D>,
): Tensor<D> {
  const [m, rank] = thin.shape
  const wide = shape.at(-1)!
  const y = step.empty(pair.dtype, shape, 'widened')
  const entry = form === 'nt' ? wgsl.widenNt : wgsl.backwardWiden
  const params = { m, rank, wide, each: 0, factor: 1 }
  step.run(entry, { pair, thin, base: base ?? pair, y }, params, {
    workgroups: grid(Math.ceil((Math.ceil(m / 8) * (wide / 4)) / 64)),
    flops: 2 * y.size * rank,
    bytes: pair.bytes + thin.bytes + y.bytes * (base ? 2 : 1),
    constants: { has_base: base ? 1 : 0 },
  })
  return y
}

/** Rows that belong to adapters: see lora-batch.wgsl. */
export interface RowIds {
  readonly ids: Tensor<'u32'>
  /** Number of adapters. */
  readonly count: number
  /** Rows for each id. */
  readonly span: number
}

/**
 * thinᵀ · x, (R, C), or (C, R) with `transposed`; with `rows` one such matrix for each adapter, from its own rows. Not on
 * the tape; always summed in the same order.
 * @param thin f32 (M, R)
 * @param x f32 or f16 (…, C); C and R are multiples of four.
 * @returns the dtype of `x`.
 */
export function thinGradient<D extends FloatType>(
  step: Step,
  thin: Tensor<'f32'>,
  x: Tensor<D>,
  { transposed = false, rows }: { transposed?: boolean; rows?: RowIds } = {},
): Tensor<D> {
  const [m, rank] = thin.shape
  const wide = x.size / m
  const workgroups = Math.ceil((Math.ceil(wide / 8) * (rank / 4)) / 64)
  const slices = rows ? rows.count : slicesFor(workgroups, m, 32)
  const sums = step.empty('f32', [slices, rank * wide], 'dpair')
  const params = { m, rank, wide, each: rows ? m : Math.ceil(m / slices), span: rows?.span ?? 1 }
  const ids = rows?.ids ?? step.upload('u32', [1], [0], 'no ids')
  step.run(loraGradient.forward, { thin, x, sums, ids }, params, {
    workgroups: [...grid(workgroups), slices],
    flops: 2 * m * rank * wide,
    constants: { transposed: transposed ? 1 : 0, by_id: rows ? 1 : 0 },
  })
  const shape = transposed ? [wide, rank] : [rank, wide]
  if (!rows) return step.reshape(columnSum(step, sums, x.dtype), shape)
  // One slice an adapter: nothing is left to add, but f16 wants its rounding.
  const flat = step.reshape(sums, [1, slices * rank * wide])
  return step.reshape(columnSum(step, flat, x.dtype), [slices, ...shape])
}
