import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { lanesFor } from './lanes.ts'
import { scatterLanes, scatter as wgsl } from './wgsl.gen.ts'

/** Sums kept as hi + lo, so that adding many f32 parts loses nothing that f32 parts still hold. */
export interface PairSum {
  readonly hi: Tensor<'f32'>
  readonly lo: Tensor<'f32'>
}

/** A sum of `size` zeros that lives in `scope`. */
export function pairSum(scope: Scope, size: number, label: string): PairSum {
  return {
    hi: scope.filled('f32', [size], 0, `${label}.hi`),
    lo: scope.filled('f32', [size], 0, `${label}.lo`),
  }
}

/** Columns rounded up to what vec4 loads need. */
export function wideColumns(columns: number): number {
  return 4 * Math.ceil(columns / 4)
}

/** Numbers in the packed upper triangle of a (d, d) matrix in blocks of 8 × 8. */
export function triangleSize(d: number): number {
  const side = Math.ceil(d / 8)
  return 32 * side * (side + 1)
}

/** The full symmetric (d, d) matrix, row-major f64, of a packed triangle hi + lo. */
export function unpackTriangle(d: number, hi: ArrayLike<number>, lo: ArrayLike<number>): Float64Array {
  const full = new Float64Array(d * d)
  for (let c = 0; c < d; c++)
    for (let r = 0; r <= c; r++) {
      const [i, j] = [r >> 3, c >> 3]
      const at = 64 * ((j * (j + 1)) / 2 + i) + 8 * (r & 7) + (c & 7)
      full[r * d + c] = full[c * d + r] = hi[at] + lo[at]
    }
  return full
}

/**
 * Rows with their length rounded up to a multiple of four, zeros behind; `x` itself where it already is.
 * @param x f32 or f16 (…, C).
 * @returns the dtype of `x`, (rows, wideColumns(C)). It has no gradient.
 */
export function widenRows<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  const width = wideColumns(columns)
  if (width === columns) return step.reshape(x, [rows, columns])
  const wide = step.empty(x.dtype, [rows, width], 'wide')
  const dispatch = { workgroups: grid(Math.ceil(wide.size / 64)), flops: 0 }
  step.run(wgsl.widen, { narrow: x, wide }, { rows, columns, wide: width }, dispatch)
  return step.node('widenRows', wide, [x], 'none')
}

/** Rows that one f32 sum may run over before it is folded into the pair. */
const mostRowsEach = 256
/** Bytes that the parts of one dispatch may take. */
const mostPartBytes = 2 ** 26
/** Invocations that keep a large GPU busy: short batches are cut finer to reach them. */
const wantedInvocations = 2 ** 15

/**
 * total += Σ weights[r] · (x[r] − shift)(x[r] − shift)ᵀ, the upper triangle as {@link unpackTriangle} reads it.
 * @param total of {@link triangleSize}(C) numbers; it outlives the step.
 * @param x f32 or f16 (rows, C), C a multiple of four.
 * @param weights f32 (rows). Rows of weight 0 may hold anything.
 * @param shift f32 (C).
 * @param tier the kernel; what suits the GPU unless told.
 * @throws RangeError when the sizes do not fit.
 */
export function addScatter(
  step: Step,
  total: PairSum,
  x: Tensor<FloatType>,
  weights: Tensor<'f32'>,
  shift: Tensor<'f32'>,
  tier: ScatterTier = usualScatter(step.gpu),
): void {
  const { columns } = checkRows('addScatter', x, weights, shift)
  expectShape('addScatter', x, 'total.hi', total.hi, [triangleSize(columns)])
  if (tier === 'lanes') lentScatter(step, total, x, weights, shift)
  else slicedScatter(step, total, x, weights, shift)
}

/** Kernels of {@link addScatter}: `lanes` needs subgroups. */
export type ScatterTier = 'lanes' | 'blocks'

/** The kernels of {@link addScatter} that run here. */
export function scatterTiers({ capabilities }: Gpu): ScatterTier[] {
  return capabilities.subgroups ? ['lanes', 'blocks'] : ['blocks']
}

/** A GPU in software has fast shuffles; on others loads of neighbours come from one cache line. */
function usualScatter({ software, capabilities }: Gpu): ScatterTier {
  return software && capabilities.subgroups ? 'lanes' : 'blocks'
}

/** Rows that the lanes kernel sums before it adds to the pair: its `span`. */
const mostLentRows = 512

type Scatter = (step: Step, total: PairSum, x: Tensor<FloatType>, weights: Tensor<'f32'>, shift: Tensor<'f32'>) => void

const lentScatter: Scatter = (step, { hi, lo }, x, weights, shift) => {
  const { rows, columns } = rowsAndColumns(x.shape)
  const { lent, across } = lanesFor(step.gpu, columns)
  const params = { width: columns / 4, rows, zero: 0 }
  step.run(scatterLanes.blocks, { x, weights, shift, hi, lo }, params, {
    workgroups: [Math.ceil(columns / (4 * across)), Math.ceil(columns / (4 * lent))],
    flops: rows * columns * (columns + 1),
    bytes: x.bytes + 16 * Math.ceil(rows / mostLentRows) * hi.size,
    constants: { lent, across },
  })
}

const slicedScatter: Scatter = (step, total, x, weights, shift) => {
  const { rows, columns } = rowsAndColumns(x.shape)
  const blocks = triangleSize(columns) / 64
  const sliceBytes = 256 * blocks
  const rowsEach = sliceRows(rows, blocks)
  const slicesEach = Math.max(1, Math.min(Math.ceil(rows / rowsEach), Math.floor(mostPartBytes / sliceBytes)))
  const part = step.empty('f32', [slicesEach, 64 * blocks], 'part')
  for (let first = 0; first < rows; first += slicesEach * rowsEach) {
    const end = Math.min(rows, first + slicesEach * rowsEach)
    const slices = Math.ceil((end - first) / rowsEach)
    const params = { width: columns / 4, blocks, first_row: first, end_row: end, rows_each: rowsEach, squared: 0 }
    step.run(wgsl.blocks, { x, weights, shift, part }, params, {
      workgroups: [Math.ceil(blocks / 64), slices],
      flops: (end - first) * columns * (columns + 1),
    })
    fold(step, total, part, slices)
  }
}

/**
 * total += Σ weights[r] · (x[r] − shift), column by column; of the squares when `squared`.
 * @param total of C numbers; it outlives the step.
 * @param x f32 or f16 (rows, C), C a multiple of four.
 * @param weights f32 (rows). Rows of weight 0 may hold anything.
 * @param shift f32 (C).
 * @throws RangeError when the sizes do not fit.
 */
export function addColumnSums(
  step: Step,
  total: PairSum,
  x: Tensor<FloatType>,
  weights: Tensor<'f32'>,
  shift: Tensor<'f32'>,
  { squared = false }: { squared?: boolean } = {},
): void {
  const { rows, columns } = checkRows('addColumnSums', x, weights, shift)
  expectShape('addColumnSums', x, 'total.hi', total.hi, [columns])
  const rowsEach = Math.min(mostRowsEach, Math.max(16, Math.ceil(rows / 64)))
  const slices = Math.ceil(rows / rowsEach)
  const part = step.empty('f32', [slices, columns], 'part')
  const params = {
    width: columns / 4,
    blocks: 0,
    first_row: 0,
    end_row: rows,
    rows_each: rowsEach,
    squared: squared ? 1 : 0,
  }
  step.run(wgsl.columns, { x, weights, shift, part }, params, {
    workgroups: [Math.ceil(columns / 256), slices],
    flops: 2 * x.size,
  })
  fold(step, total, part, slices)
}

/** total += part, both pairs of the same size. */
export function addPair(step: Step, total: PairSum, part: PairSum): void {
  expectShape('addPair', total.hi, 'part.hi', part.hi, total.hi.shape)
  fold(step, total, part.hi, 1)
  fold(step, total, part.lo, 1)
}

function sliceRows(rows: number, blocks: number): number {
  const wanted = Math.ceil(wantedInvocations / blocks)
  return Math.min(mostRowsEach, Math.max(64, Math.ceil(rows / wanted)))
}

function checkRows(op: string, x: Tensor, weights: Tensor, shift: Tensor) {
  const { rows, columns } = rowsAndColumns(x.shape)
  if (columns % 4 !== 0)
    throw new RangeError(
      `Cannot ${op} x [${x.shape}]: its rows must be a multiple of four long; widenRows makes them so`,
    )
  expectShape(op, x, 'weights', weights, [rows])
  expectShape(op, x, 'shift', shift, [columns])
  return { rows, columns }
}

function fold(step: Step, { hi, lo }: PairSum, slices: Tensor<'f32'>, count: number): void {
  const params = { size: hi.size / 4, slices: count, zero: 0 }
  const dispatch = {
    workgroups: grid(Math.ceil(hi.size / 256)),
    flops: 7 * count * hi.size,
    bytes: 4 * (count + 4) * hi.size,
  }
  step.run(wgsl.fold, { slices, hi, lo }, params, dispatch)
}
