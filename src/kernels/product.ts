import type { FloatType } from '../core/dtype.ts'
import { grid } from '../runtime/entry.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { Activation } from './gemv.ts'
import { lanesFor } from './lanes.ts'
import { matmulAny, matmulLanes, matmulStaged, matmulUnits, matmul as registers, splitSum } from './wgsl.gen.ts'

/** A product y = base + alpha · (a · b) of `batch` pairs of matrices, summed over k. */
export interface Product<D extends FloatType> {
  readonly batch: number
  readonly m: number
  readonly n: number
  readonly k: number
  /** (batch, m, k), or (batch, k, m) when transposed. */
  readonly a: Tensor<D>
  readonly transposeA: boolean
  /** (batch, k, n), or (batch, n, k) when transposed; may be f16 where `a` is f32. */
  readonly b: Tensor<D | 'f16'>
  readonly transposeB: boolean
  readonly alpha: number
  /** (batch, m, n), or (n): one row for all. */
  readonly base?: Tensor<D>
  /** Of base + alpha · (a · b); none unless told. */
  readonly activation?: Activation
}

/** The number of an activation in the shaders, as a constant. */
function activationOf({ activation }: Product<FloatType>) {
  return activation ? { activation: activation === 'silu' ? 1 : 2 } : {}
}

/** The tiers: kernels with the same entry points and parameters, the rows and columns of a tile, their constants. */
const tiers = {
  'registers 64x64': { kernel: registers, rows: 64, columns: 64, constants: { across: 8, down: 8 } },
  lanes: { kernel: matmulLanes, rows: 32, columns: 32, constants: { across: 8 } },
  'staged 64x64': { kernel: matmulStaged, rows: 64, columns: 64, constants: { across: 8, down: 8 } },
  'staged 128x128': { kernel: matmulStaged, rows: 128, columns: 128, constants: { across: 16, down: 16 } },
  'units 64x64': {
    kernel: matmulUnits,
    rows: 64,
    columns: 64,
    constants: { units_down: 2, units_across: 2, tiles_down: 2, tiles_across: 2 },
  },
  'units 128x64': {
    kernel: matmulUnits,
    rows: 128,
    columns: 64,
    constants: { units_down: 4, units_across: 2, tiles_down: 2, tiles_across: 2 },
  },
  'units 128x128': {
    kernel: matmulUnits,
    rows: 128,
    columns: 128,
    constants: { units_down: 4, units_across: 2, tiles_down: 2, tiles_across: 4 },
  },
} as const

/** Tiles for few columns, where most lanes of a square tile would idle: they go to more rows instead. */
const tall = {
  'registers 8': { kernel: registers, rows: 512, columns: 8, constants: { across: 1, down: 64 } },
  'registers 16': { kernel: registers, rows: 256, columns: 16, constants: { across: 2, down: 32 } },
  'staged 16': { kernel: matmulStaged, rows: 128, columns: 16, constants: { across: 2, down: 16 } },
} as const

/** Name of a kernel for products. */
export type ProductTier = keyof typeof tiers

/** The kernels for products that run here on a storage type. */
export function productTiers(gpu: Gpu, dtype: FloatType): ProductTier[] {
  const { matrixUnits, subgroups } = gpu.capabilities
  const missing = [matrixUnits > 0 && dtype === 'f16' ? '' : 'units', subgroups ? '' : 'lanes'].filter(Boolean)
  return (Object.keys(tiers) as ProductTier[]).filter((name) => !missing.some((kind) => name.startsWith(kind)))
}

/** What the choice of a tier is remembered under: dtype, layout and whether the grid is small. */
export function productWork(dtype: FloatType, transposeA: boolean, transposeB: boolean, m: number, n: number): string {
  const size = m * n <= 256 * 256 ? 'small' : 'large'
  return `product ${dtype} ${transposeA ? 't' : 'n'}${transposeB ? 't' : 'n'} ${size}`
}

/** The tier that a product takes where nothing was measured: a GPU in software has fast shuffles and no fast staging. */
export function usualTier(gpu: Gpu, m: number, n: number): ProductTier {
  if (gpu.software) return gpu.capabilities.subgroups ? 'lanes' : 'registers 64x64'
  return m * n <= 512 * 512 ? 'staged 64x64' : 'staged 128x128'
}

/** Records a product into `y`, dtype D (batch, m, n). */
export function product<D extends FloatType>(step: Step, problem: Product<D>, y: Tensor<D>): void {
  const { m, n, k, transposeA, transposeB } = problem
  const vectors = transposeA ? [m, n] : transposeB ? [k] : [k, n]
  if (vectors.some((size) => size % 4 !== 0)) {
    anyProduct(step, problem, y)
    return
  }
  const work = productWork(y.dtype, transposeA, transposeB, m, n)
  tiledProduct(
    step,
    problem,
    y,
    step.gpu.tuning.choice(work, productTiers(step.gpu, y.dtype), usualTier(step.gpu, m, n)),
  )
}

/** Fewest of k that a split sums: shorter ones cost more to add up than they win. */
const leastChunk = 128
/** Most of k that is added up in one go in f32: the error of longer sums passes 2e-6. */
const longestSum = 4096

function tiledProduct<D extends FloatType>(step: Step, problem: Product<D>, y: Tensor<D>, tier: ProductTier): void {
  const { batch, m, n, k, a, b, base, alpha } = problem
  const tile = tileFor(step.gpu, problem, tier)
  const { kernel } = tile
  const [columns, rows] = [Math.ceil(n / tile.columns), Math.ceil(m / tile.rows)]
  const wanted = step.gpu.software ? 4 : 256
  const idle = Math.min(Math.floor(wanted / (columns * rows * batch)), Math.floor(k / leastChunk))
  const accurate = y.dtype === 'f32' && kernel !== matmulLanes ? Math.ceil(k / longestSum) : 1
  const splits = Math.max(1, idle, accurate)
  const chunk = 16 * Math.ceil(k / splits / 16)
  const params = {
    ...{ m, n, k, chunk, splits: Math.ceil(k / chunk), alpha },
    ...{ a_stride: (m * k) / 4, b_stride: (k * n) / 4, ...baseStrides(problem) },
  }
  const dispatch = {
    workgroups: [columns, rows, batch * params.splits],
    flops: 2 * batch * m * n * k,
    constants: {
      ...{ a_transposed: +problem.transposeA, b_transposed: +problem.transposeB },
      ...tile.constants,
      ...activationOf(problem),
      ...(kernel === matmulUnits ? { subgroup: step.gpu.capabilities.matrixUnits } : {}),
    },
  }
  if (params.splits === 1) {
    if (base) step.run(kernel.onto, { a, b, y, base }, params, dispatch)
    else step.run(kernel.plain, { a, b, y }, params, dispatch)
    return
  }
  const parts = step.empty('f32', [batch, params.splits, m, n], 'parts')
  step.run(kernel.split, { a, b, parts }, params, dispatch)
  const sums = { batch, splits: params.splits, size: m * n, n, alpha, ...baseStrides(problem) }
  const adding = { workgroups: grid(Math.ceil(y.size / 64)), flops: parts.size, constants: activationOf(problem) }
  if (base) step.run(splitSum.onto, { parts, y, base }, sums, adding)
  else step.run(splitSum.plain, { parts, y }, sums, adding)
}

/** The tile that a tier means for one product. */
function tileFor(gpu: Gpu, { m, n }: Product<FloatType>, tier: ProductTier) {
  const staged = tier.startsWith('staged') || tier.startsWith('units')
  if (n <= 16) return tall[staged ? 'staged 16' : n <= 8 ? 'registers 8' : 'registers 16']
  const tile = tiers[tier]
  if (tile.kernel !== matmulLanes) return tile
  if (n % 4 !== 0) return tiers['registers 64x64']
  const lanes = lanesFor(gpu, m)
  return { kernel: tile.kernel, rows: lanes.rows, columns: 4 * lanes.across, constants: lanes }
}

function anyProduct<D extends FloatType>(step: Step, problem: Product<D>, y: Tensor<D>): void {
  const { batch, m, n, k, a, b, base, alpha, transposeA, transposeB } = problem
  const params = {
    ...{ m, n, k, alpha, a_stride: m * k, b_stride: k * n, ...baseStrides(problem) },
    ...(transposeA ? { a_row: 1, a_column: m } : { a_row: k, a_column: 1 }),
    ...(transposeB ? { b_row: 1, b_column: k } : { b_row: n, b_column: 1 }),
  }
  const dispatch = {
    workgroups: [Math.ceil(n / 64), Math.ceil(m / 32), batch],
    flops: 2 * batch * m * n * k,
    constants: activationOf(problem),
  }
  if (base) step.run(matmulAny.onto, { a, b, y, base }, params, dispatch)
  else step.run(matmulAny.plain, { a, b, y }, params, dispatch)
}

function baseStrides({ base, m, n }: Product<FloatType>) {
  const oneRow = base?.shape.length === 1
  return { base_row: oneRow ? 0 : n, base_stride: oneRow ? 0 : m * n }
}
