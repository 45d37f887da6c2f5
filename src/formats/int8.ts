import { type Shape, showShape, sizeOf } from '../core/shape.ts'

/** A matrix in int8, row by row: value = code · absmax / 127. */
export interface Int8 {
  /** (N, K) */
  readonly shape: Shape
  /** i8 (N·K), from −127 to 127. */
  readonly codes: Int8Array<ArrayBuffer>
  /** f32 (N): the largest magnitude of each row; `SCB` in files of bitsandbytes. */
  readonly absmax: Float32Array<ArrayBuffer>
}

/** What a code is worth in a row whose largest magnitude is 1. */
const unit = Math.fround(1 / 127)

/**
 * Quantises to int8: each row by its largest magnitude, ties to even.
 * @param values finite numbers, as many as `shape` has.
 * @param shape (N, K).
 * @throws RangeError when the sizes do not fit or a value is not finite.
 * @see Dettmers et al., LLM.int8(), 2022, section 2.1; rounding as in bitsandbytes: round(value · f32(127 / absmax)).
 */
export function quantizeInt8(values: Float32Array, shape: Shape): Int8 {
  if (shape.length !== 2 || values.length !== sizeOf(shape))
    throw new RangeError(`Cannot quantise ${showShape(shape)} to int8: it must be (N, K), got ${values.length} values`)
  const [n, k] = shape
  const codes = new Int8Array(n * k)
  const absmax = new Float32Array(n)
  for (let row = 0; row < n; row++) {
    const part = values.subarray(row * k, (row + 1) * k)
    for (const [i, value] of part.entries()) {
      if (!Number.isFinite(value)) throw new RangeError(`Cannot quantise to int8: value ${row * k + i} is ${value}`)
      absmax[row] = Math.max(absmax[row], Math.abs(value))
    }
    if (absmax[row] === 0) continue
    const factor = Math.fround(127 / absmax[row])
    for (const [i, value] of part.entries()) codes[row * k + i] = roundToEven(Math.fround(value * factor))
  }
  return { shape, codes, absmax }
}

function roundToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor
}

/** The values that int8 stands for: code · (absmax · f32(1 / 127)), each product rounded to f32. */
export function dequantizeInt8({ shape, codes, absmax }: Int8): Float32Array<ArrayBuffer> {
  const k = shape[1]
  return Float32Array.from(codes, (code, i) => code * Math.fround(absmax[Math.floor(i / k)] * unit))
}
