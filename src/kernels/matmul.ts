import type { FloatType } from '../core/dtype.ts'
import { sameShape, showShape, sizeOf } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { joinColumns } from './columns.ts'
import { cast } from './copy.ts'
import { gelu, scale, silu } from './elementwise.ts'
import { type Activation, gemvInto, mostGemvRows } from './gemv.ts'
import { product } from './product.ts'

/** How {@link matmul} reads its factors and what it does with their product. */
export interface MatmulOptions<D extends FloatType = FloatType> {
  /** `a` is (…, K, M). */
  readonly transposeA?: boolean
  /** `b` is (…, N, K), as weights of a linear layer are. */
  readonly transposeB?: boolean
  /** Factor of the product; 1 unless told. */
  readonly alpha?: number
  /** Added to the product, in its dtype: its shape, or one row (N) for all. */
  readonly base?: Tensor<D>
  /**
   * Of all that: silu or gelu of base + alpha · (a · b), where the product is stored. With a gradient it is an op of its own,
   * which keeps what it read.
   */
  readonly activation?: Activation
}

/**
 * base + alpha · (a · b) for each matrix of a batch; sums are f32 whatever the storage. With `base` it replaces
 * `add(base, scale(matmul(a, b), alpha))`, and a bias or a residual costs one read.
 * @param a f32 or f16 (…, M, K), or (…, K, M) with `transposeA`.
 * @param b the dtype of `a`, or f16: (…, K, N), or (…, N, K) with `transposeB`. Either the same leading dimensions as
 *   `a`, or none: one matrix for all rows of `a`.
 * @returns the dtype of `a`, (…, M, N).
 * @throws RangeError when the inner or the leading dimensions differ, or both are transposed; TypeError when the dtypes
 *   do not fit.
 */
export function matmul<D extends FloatType>(
  step: Step,
  a: Tensor<D>,
  b: Tensor<D | 'f16'>,
  options: MatmulOptions<D> = {},
): Tensor<D> {
  const { activation, ...rest } = options
  if (activation && (step.records([a, b, ...(rest.base ? [rest.base] : [])]) || b.windows || isFew(a, b, rest)))
    return activation === 'silu' ? silu(step, matmul(step, a, b, rest)) : gelu(step, matmul(step, a, b, rest))
  const { transposeA = false, transposeB = false, alpha = 1, base } = rest
  if (b.dtype !== a.dtype && (b.dtype !== 'f16' || transposeA))
    throw new TypeError(
      `Cannot matmul a ${a.dtype} with b ${b.dtype}: b must be of the dtype of a, or f16 where a is not transposed`,
    )
  if (b.windows) {
    if (!transposeB || base || alpha !== 1)
      throw new RangeError(
        `Cannot matmul with b ${showShape(b.shape)}: it lies in windows, which only a plain NT reads`,
      )
    return joinColumns(
      step,
      b.windows.map((window) => matmul(step, a, window, { transposeB })),
    )
  }
  if (b.shape.length === 2 && a.shape.length > 2 && !transposeA) {
    // One matrix for all: the batch of `a` is just more rows.
    const flat = <T extends FloatType>(x: Tensor<T>) => step.reshape(x, [x.size / x.shape.at(-1)!, x.shape.at(-1)!])
    const onto = base && base.shape.length > 1 ? flat(base) : base
    const y = matmul(step, flat(a), b, { ...rest, base: onto, activation })
    return step.reshape(y, [...a.shape.slice(0, -1), y.shape[1]])
  }
  const { batch, m, n, k } = sizesOf(a, b, transposeA, transposeB)
  const shape = [...a.shape.slice(0, -2), m, n]
  if (base && !sameShape(base.shape, shape) && !sameShape(base.shape, [n]))
    throw new RangeError(
      `Cannot matmul onto base ${showShape(base.shape)}: it must be ${showShape(shape)} or one row ${showShape([n])}`,
    )
  // So few rows that reading `b` is all that counts; that kernel does not scale, so that is an op of its own.
  const few = isFew(a, b, rest)
  if (few && alpha !== 1 && base?.shape.length !== 1) {
    const plain = matmul(step, a, b, { transposeB })
    const scaled = scale(step, plain, alpha)
    return base ? add(step, base, scaled) : scaled
  }
  const y = step.empty(a.dtype, shape, 'matmul')
  if (few && base?.shape.length !== 1) gemvInto(step, a, b, y, { base })
  else product(step, { batch, m, n, k, a, b, transposeA, transposeB, alpha, base, activation }, y)

  return step.node('matmul', y, base ? [a, b, base] : [a, b], (dy) => {
    const times = (left: Tensor<D | 'f16'>, right: Tensor<D | 'f16'>, layout: MatmulOptions) =>
      matmul(step, left, right, { ...layout, alpha } as MatmulOptions<D>)
    const da = () => (transposeA ? times(b, dy, { transposeB: true }) : times(dy, b, { transposeB: !transposeB }))
    const db = () =>
      transposeA
        ? times(a, dy, {})
        : transposeB
          ? times(dy, a, { transposeA: true })
          : times(a, dy, { transposeA: true })
    return [
      a.requiresGrad ? da() : null,
      b.requiresGrad ? cast(step, db(), b.dtype) : null,
      base?.requiresGrad ? (sameShape(base.shape, dy.shape) ? dy : columnSums(step, dy)) : null,
    ]
  })
}

/** Whether a product reads its one weight for so few rows that the GEMV does it. */
function isFew(a: Tensor, b: Tensor, { transposeA = false, transposeB = false }: MatmulOptions): boolean {
  const [rows, k] = [a.size / a.shape.at(-1)!, a.shape.at(-1)!]
  const oneMatrix = b.shape.slice(0, -2).every((size) => size === 1)
  return transposeB && !transposeA && oneMatrix && rows <= mostGemvRows && k % 4 === 0
}

/**
 * Sum over all but the last dimension, as a product with ones.
 * @param x f32 or f16 (…, N).
 * @returns the dtype of `x`, (N).
 */
export function columnSums<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  const columns = x.shape.at(-1)!
  const rows = x.size / columns
  const ones = step.filled(x.dtype, [1, rows], 1, 'ones')
  return step.reshape(matmul(step, ones, step.reshape(x, [rows, columns])), [columns])
}

function sizesOf(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean) {
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

/**
 * A linear layer: base + alpha · (x · weightᵀ).
 * @param x f32 or f16 (…, K).
 * @param weight the dtype of `x`, or f16, (N, K).
 * @param options.base a bias (N) or a residual (…, N), in the dtype of `x`.
 * @returns the dtype of `x`, (…, N).
 * @throws RangeError when the sizes of K differ.
 */
export function linear<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: Tensor<D | 'f16'>,
  options: Pick<MatmulOptions<D>, 'alpha' | 'base' | 'activation'> = {},
): Tensor<D> {
  return matmul(step, x, weight, { ...options, transposeB: true })
}
