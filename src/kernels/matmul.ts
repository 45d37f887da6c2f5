import type { FloatType } from '../core/dtype.ts'
import { sameShape, showShape, sizeOf } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { gemvInto, mostGemvRows } from './gemv.ts'
import { matmulPlain, matmul as wgsl } from './wgsl.gen.ts'

/** Which factors of {@link matmul} are stored transposed. At most one may be. */
export interface MatmulOptions {
  /** `a` is (…, K, M). */
  readonly transposeA?: boolean
  /** `b` is (…, N, K), as weights of a linear layer are. */
  readonly transposeB?: boolean
}

/** Sizes of a product: `batch` matrices (m, n), summed over k. */
interface Problem {
  readonly batch: number
  readonly m: number
  readonly n: number
  readonly k: number
}

/**
 * a · b for each matrix of a batch; sums are f32 whatever the storage.
 * @param a f32 or f16 (…, M, K), or (…, K, M) with `transposeA`.
 * @param b the dtype of `a`: (…, K, N), or (…, N, K) with `transposeB`. Either the same leading dimensions as `a`, or
 *   none: one matrix for all rows of `a`.
 * @returns the dtype of `a`, (…, M, N).
 * @throws RangeError when the inner or the leading dimensions differ.
 */
export function matmul<D extends FloatType>(
  step: Step,
  a: Tensor<D>,
  b: Tensor<D>,
  { transposeA = false, transposeB = false }: MatmulOptions = {},
): Tensor<D> {
  const shared = b.shape.length === 2 && a.shape.length > 2
  if (shared && !transposeA) {
    // One matrix for all: the batch of `a` is just more rows.
    const rows = step.reshape(a, [a.size / a.shape.at(-1)!, a.shape.at(-1)!])
    const y = matmul(step, rows, b, { transposeB })
    return step.reshape(y, [...a.shape.slice(0, -1), y.shape[1]])
  }
  const problem = problemOf(a, b, transposeA, transposeB)
  const y = step.empty(a.dtype, [...a.shape.slice(0, -2), problem.m, problem.n], 'matmul')
  dispatch(step, a, b, y, problem, transposeA, transposeB)

  return step.node('matmul', y, [a, b], (dy) => {
    if (transposeA)
      return [
        a.requiresGrad ? matmul(step, b, dy, { transposeB: true }) : null,
        b.requiresGrad ? matmul(step, a, dy) : null,
      ]
    return [
      a.requiresGrad ? matmul(step, dy, b, { transposeB: !transposeB }) : null,
      !b.requiresGrad
        ? null
        : transposeB
          ? matmul(step, dy, a, { transposeA: true })
          : matmul(step, a, dy, { transposeA: true }),
    ]
  })
}

function problemOf(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Problem {
  const fault = (reason: string) =>
    new RangeError(`Cannot matmul a ${showShape(a.shape)} with b ${showShape(b.shape)}: ${reason}`)
  if (transposeA && transposeB) throw fault('at most one of them may be transposed')
  if (a.shape.length < 2 || a.shape.length !== b.shape.length) throw fault('both must be (…, rows, columns)')
  const lead = a.shape.slice(0, -2)
  if (!sameShape(lead, b.shape.slice(0, -2))) throw fault('the leading dimensions differ')
  const [aRows, aColumns] = a.shape.slice(-2)
  const [bRows, bColumns] = b.shape.slice(-2)
  const [m, k] = transposeA ? [aColumns, aRows] : [aRows, aColumns]
  const [inner, n] = transposeB ? [bColumns, bRows] : [bRows, bColumns]
  if (inner !== k) throw fault(`the inner dimensions are ${k} and ${inner}`)
  return { batch: sizeOf(lead), m, n, k }
}

/** Rows and columns that one invocation makes, and invocations of a workgroup. */
const square = 8
const invocations = 64
const plainTile = 8

function dispatch<D extends FloatType>(
  step: Step,
  a: Tensor<D>,
  b: Tensor<D>,
  y: Tensor<D>,
  { batch, m, n, k }: Problem,
  transposeA: boolean,
  transposeB: boolean,
): void {
  const flops = 2 * batch * m * n * k
  const fours = (...sizes: number[]) => sizes.every((size) => size % 4 === 0)
  if (transposeB && batch === 1 && m <= mostGemvRows && fours(k)) {
    gemvInto(step, a, b, y)
    return
  }
  const tiled = transposeA ? fours(m, n) : transposeB ? fours(k) : fours(k, n)
  if (tiled) {
    const entry = transposeA ? wgsl.tn : transposeB ? wgsl.nt : wgsl.nn
    const params = { m, n, k, a_stride: (m * k) / 4, b_stride: (k * n) / 4 }
    // Few columns: lanes without a column would idle, so they go to more rows instead.
    const across = n <= square ? 1 : n <= 2 * square ? 2 : square
    const constants = { across, down: invocations / across }
    const workgroups = [Math.ceil(n / (square * across)), Math.ceil(m / (square * constants.down)), batch]
    step.run(entry, { a, b, y }, params, { workgroups, flops, constants })
    return
  }
  const params = {
    ...{ m, n, k, a_stride: m * k, b_stride: k * n },
    ...(transposeA ? { a_row: 1, a_column: m } : { a_row: k, a_column: 1 }),
    ...(transposeB ? { b_row: 1, b_column: k } : { b_row: n, b_column: 1 }),
  }
  const workgroups = [Math.ceil(n / plainTile), Math.ceil(m / plainTile), batch]
  step.run(matmulPlain.forward, { a, b, y }, params, { workgroups, flops })
}

/**
 * A linear layer without bias: x · weightᵀ.
 * @param x f32 or f16 (…, K).
 * @param weight the dtype of `x`, (N, K).
 * @returns the dtype of `x`, (…, N).
 * @throws RangeError when the sizes of K differ.
 */
export function linear<D extends FloatType>(step: Step, x: Tensor<D>, weight: Tensor<D>): Tensor<D> {
  return matmul(step, x, weight, { transposeB: true })
}
