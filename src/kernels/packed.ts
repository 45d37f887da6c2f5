import type { FloatType } from '../core/dtype.ts'
import { type Shape, showShape } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { mostGemvRows } from './gemv.ts'
import { lanesFor } from './lanes.ts'
import { packedGemvInto } from './packed-gemv.ts'
import { type PackedWeight, weightOperands } from './packed-weight.ts'
import { dequantize, packed, packedLanes } from './wgsl.gen.ts'

/** A low-rank update that a product with a packed weight goes on to sum: see {@link packedForward}. */
export interface ThinUpdate<D extends FloatType> {
  /** f32 (M, R), R a multiple of 4. */
  readonly thin: Tensor<'f32'>
  /** (N, R) forward, (R, K) backward. */
  readonly wide: Tensor<D>
}

/** Steps of 8 values of a row that share a scale. */
function runOf(k: number): number {
  const steps = k / 8
  return steps % 8 === 0 ? 8 : steps % 4 === 0 ? 4 : steps % 2 === 0 ? 2 : 1
}

/**
 * The kernel for `m` rows of `columns` columns, its constants and workgroups. In software, lanes lend each other rows where
 * n is a multiple of four; elsewhere few columns get a taller workgroup.
 * @param each columns that a lane makes when lanes lend.
 * @param most rows of a tile then.
 */
function layout(gpu: Gpu, { m, n, columns }: { m: number; n: number; columns: number }, each: number, most: number) {
  if (gpu.software && gpu.capabilities.subgroups && n % 4 === 0 && columns > 16) {
    const { lent, across, rows: usual } = lanesFor(gpu, m)
    const rows = Math.min(usual, most)
    const workgroups = [Math.ceil(columns / (each * across)), Math.ceil(m / rows)]
    return { wgsl: packedLanes, constants: { lent, across, rows }, workgroups }
  }
  const across = columns <= 8 ? 1 : columns <= 16 ? 2 : 8
  const down = 64 / across
  const workgroups = [Math.ceil(columns / (8 * across)), Math.ceil(m / (8 * down))]
  return { wgsl: packed, constants: { across, down }, workgroups }
}

/**
 * Checks the inner dimension of a product with `weight`.
 * @returns M, N and K.
 * @throws RangeError when the sizes of K differ.
 */
export function packedSizes(op: string, x: Tensor, weight: PackedWeight) {
  const [n, k] = weight.shape
  if (x.shape.at(-1) !== k)
    throw new RangeError(
      `Cannot ${op} x ${showShape(x.shape)}: weight is ${showShape(weight.shape)}, so x must be (…, ${k})`,
    )
  return { m: x.size / k, n, k }
}

/** x · weightᵀ (+ thin · wideᵀ), (…, N); not on the tape. Up to four rows without an update take the GEMV. */
export function packedForward<D extends FloatType>(
  step: Step,
  op: string,
  x: Tensor<D>,
  weight: PackedWeight,
  update?: ThinUpdate<D>,
): Tensor<D> {
  const { m, n, k } = packedSizes(op, x, weight)
  const y = step.empty(x.dtype, [...x.shape.slice(0, -1), n], op)
  if (m <= mostGemvRows && !update) {
    packedGemvInto(step, x, weight, y)
    return y
  }
  const rank = update?.thin.shape.at(-1) ?? 0
  const { wgsl, constants, workgroups } = layout(step.gpu, { m, n, columns: n }, 4, 32)
  const dispatch = {
    ...{ workgroups, constants: { ...constants, form: weight.form } },
    ...{ flops: 2 * m * n * (k + rank), bytes: x.bytes + y.bytes + weight.bytes + updateBytes(update) },
  }
  const params = { m, n, k, run: runOf(k), width: 0, rank, offset: weight.offset }
  const operands = { ...weightOperands(weight), x, y }
  if (update) step.run(wgsl.forwardLora, { ...operands, thin: update.thin, up: update.wide }, params, dispatch)
  else step.run(wgsl.forward, operands, params, dispatch)
  return y
}

/** dy · weight (+ thin · wide), of shape `shape` (…, K); not on the tape. */
export function packedBackward<D extends FloatType>(
  step: Step,
  dy: Tensor<D>,
  weight: PackedWeight,
  shape: Shape,
  update?: ThinUpdate<D>,
): Tensor<D> {
  const [n, k] = weight.shape
  const m = dy.size / n
  const dx = step.empty(dy.dtype, shape, 'dx')
  const rank = update?.thin.shape.at(-1) ?? 0
  const { wgsl, constants, workgroups } = layout(step.gpu, { m, n, columns: k }, 8, 16)
  const dispatch = {
    ...{ workgroups, constants: { ...constants, form: weight.form } },
    ...{ flops: 2 * m * k * (n + rank), bytes: dy.bytes + dx.bytes + weight.bytes + updateBytes(update) },
  }
  const width = Math.ceil(n / 4) * 4
  const params = { m, n, k, run: 0, width, rank, offset: weight.offset }
  const operands = { ...weightOperands(weight), dy: n === width ? dy : padded(step, dy, m, n, width), dx }
  if (update) step.run(wgsl.backwardLora, { ...operands, thin: update.thin, lower: update.wide }, params, dispatch)
  else step.run(wgsl.backward, operands, params, dispatch)
  return dx
}

function updateBytes(update?: ThinUpdate<FloatType>): number {
  return update ? update.thin.bytes + update.wide.bytes : 0
}

/** Rows of `dy` filled up with zeros to a width that vec4 loads can run along. */
function padded<D extends FloatType>(step: Step, dy: Tensor<D>, m: number, n: number, width: number): Tensor<D> {
  const y = step.empty(dy.dtype, [m, width], 'padded')
  const params = { m, n, k: 0, run: 0, width, rank: 0, offset: 0 }
  step.run(packed.backwardPad, { ragged: dy, padded: y }, params, {
    workgroups: grid(Math.ceil(y.size / 64)),
    flops: 0,
  })
  return y
}

/** The whole matrix, decoded. It has no gradient: quantised weights are frozen. */
export function packedDequantize<D extends FloatType>(step: Step, weight: PackedWeight, dtype: D): Tensor<D> {
  const [n, k] = weight.shape
  const y = step.empty(dtype, weight.shape, 'dequantized')
  const params = { n, k, offset: weight.offset }
  step.run(dequantize.forward, { ...weightOperands(weight), weight: y }, params, {
    ...{ workgroups: grid(Math.ceil(y.size / 512)), flops: y.size, bytes: weight.bytes + y.bytes },
    constants: { form: weight.form },
  })
  return y
}

/** x · weightᵀ on the tape, with dx from the packed form. */
export function packedLinear<D extends FloatType>(
  step: Step,
  op: string,
  x: Tensor<D>,
  weight: PackedWeight,
): Tensor<D> {
  const y = packedForward(step, op, x, weight)
  return step.node(op, y, [x], (dy) => [packedBackward(step, dy, weight, x.shape)])
}
