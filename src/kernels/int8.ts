import type { FloatType } from '../core/dtype.ts'
import { type Shape, showShape } from '../core/shape.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { uploadBytes } from './nf4.ts'
import { packedDequantize, packedLinear } from './packed.ts'
import type { PackedWeight } from './packed-weight.ts'

/** A weight matrix (N, K) in int8 on the GPU: value = code · absmax of its row / 127. */
export interface Int8Weight {
  /** (N, K), K a multiple of 8. */
  readonly shape: Shape
  /** u32 (N·K/4): four codes a word, the first lowest, in two's complement. */
  readonly codes: Tensor<'u32'>
  /** f32 (N): the largest magnitude of each row. */
  readonly absmax: Tensor<'f32'>
}

/** An int8 matrix on the host, as src/formats/int8.ts makes it. */
export interface HostInt8 {
  readonly shape: Shape
  readonly codes: Int8Array<ArrayBuffer>
  readonly absmax: Float32Array<ArrayBuffer>
}

/**
 * Puts an int8 matrix on the GPU.
 * @param packed (N, K), K a multiple of 8.
 * @throws RangeError when the sizes do not fit.
 */
export function uploadInt8(scope: Scope, { shape, codes, absmax }: HostInt8, label = 'int8'): Int8Weight {
  const bytes = new Uint8Array(codes.buffer, codes.byteOffset, codes.length)
  const weight = {
    shape,
    codes: uploadBytes(scope, bytes, label),
    absmax: scope.upload('f32', [absmax.length], absmax, `${label}.absmax`),
  }
  packedInt8('uploadInt8', weight)
  return weight
}

/** An int8 weight as the shaders of packed.wgsl read it. @throws RangeError when its parts do not fit each other. */
export function packedInt8(op: string, { shape, codes, absmax }: Int8Weight): PackedWeight {
  const [n, k] = shape
  const fault = (reason: string) => new RangeError(`Cannot ${op} weight ${showShape(shape)}: ${reason}`)
  if (shape.length !== 2 || k % 8 !== 0) throw fault('it must be (N, K) with K a multiple of 8')
  if (codes.size !== (n * k) / 4 || absmax.size !== n)
    throw fault(`it needs ${(n * k) / 4} words and ${n} magnitudes, got ${codes.size} and ${absmax.size}`)
  const parts = { codes, scales: absmax, scale_codes: codes, scale_map: absmax }
  return { shape, form: 2, ...parts, offset: 0, bytes: codes.bytes + absmax.bytes }
}

/**
 * The whole matrix, decoded: code · absmax / 127.
 * @param dtype of the result.
 * @returns (N, K). It has no gradient: quantised weights are frozen.
 */
export function dequantizeInt8<D extends FloatType>(step: Step, weight: Int8Weight, dtype: D): Tensor<D> {
  return packedDequantize(step, packedInt8('dequantizeInt8', weight), dtype)
}

/**
 * x · weightᵀ with the weight read in int8, forward and for dx; replaces `linear(x, dequantizeInt8(weight))`. Nothing is
 * rounded to int8 but the weight: x stays as it is.
 * @param x f32 or f16 (…, K).
 * @returns the dtype of `x`, (…, N). The weight is frozen and gets no gradient.
 * @throws RangeError when the sizes of K differ.
 * @see Dettmers et al., LLM.int8(), 2022, section 2.1, for the format.
 */
export function int8Linear<D extends FloatType>(step: Step, x: Tensor<D>, weight: Int8Weight): Tensor<D> {
  return packedLinear(step, 'int8Linear', x, packedInt8('int8Linear', weight))
}
