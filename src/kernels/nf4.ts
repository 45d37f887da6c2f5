import type { FloatType } from '../core/dtype.ts'
import { type Shape, showShape } from '../core/shape.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import { packedDequantize, packedLinear } from './packed.ts'
import type { PackedWeight } from './packed-weight.ts'

/** The scales of an NF4 weight, quantised themselves: map[code] · absmax of the code's block of 256 + offset. */
export interface Nf4NestedScales {
  /** u32 (⌈blocks / 4⌉): four 8-bit codes a word, the first lowest. */
  readonly codes: Tensor<'u32'>
  /** f32 (256) */
  readonly map: Tensor<'f32'>
  /** f32 (⌈blocks / 256⌉) */
  readonly absmax: Tensor<'f32'>
  readonly offset: number
}

/** A weight matrix (N, K) in NF4 on the GPU. */
export interface Nf4Weight {
  /** (N, K), K a multiple of 8. */
  readonly shape: Shape
  /** u32 (N·K/8): 8 codes a word, the first of each byte in its high nibble. */
  readonly codes: Tensor<'u32'>
  /** f32 (⌈N·K / 64⌉): largest magnitude of each block of 64 values of the flattened matrix; or the same, nested. */
  readonly scales: Tensor<'f32'> | Nf4NestedScales
}

/** An NF4 matrix on the host, as src/formats/nf4.ts makes it. */
export interface HostNf4 {
  readonly shape: Shape
  readonly codes: Uint8Array<ArrayBuffer>
  readonly scales:
    | Float32Array<ArrayBuffer>
    | {
        readonly codes: Uint8Array<ArrayBuffer>
        readonly map: Float32Array<ArrayBuffer>
        readonly absmax: Float32Array<ArrayBuffer>
        readonly offset: number
      }
}

/**
 * Puts an NF4 matrix on the GPU, its scales as they are or nested.
 * @param packed (N, K), K a multiple of 8.
 * @throws RangeError when the sizes do not fit.
 */
export function uploadNf4(scope: Scope, { shape, codes, scales }: HostNf4, label = 'nf4'): Nf4Weight {
  const weight = {
    shape,
    codes: uploadBytes(scope, codes, label),
    scales:
      scales instanceof Float32Array
        ? scope.upload('f32', [scales.length], scales, `${label}.absmax`)
        : uploadNestedScales(scope, scales, label),
  }
  packedNf4('uploadNf4', weight)
  return weight
}

/** Puts nested scales on the GPU. */
export function uploadNestedScales(
  scope: Scope,
  { codes, map, absmax, offset }: Exclude<HostNf4['scales'], Float32Array>,
  label: string,
): Nf4NestedScales {
  const f32 = (values: Float32Array<ArrayBuffer>, name: string) =>
    scope.upload('f32', [values.length], values, `${label}.${name}`)
  const bytes = uploadBytes(scope, codes, `${label}.absmax`)
  return { codes: bytes, map: f32(map, 'map'), absmax: f32(absmax, 'nested_absmax'), offset }
}

/** Bytes as words, the first byte lowest, filled up with zeros. */
export function uploadBytes(scope: Scope, bytes: Uint8Array<ArrayBuffer>, label: string): Tensor<'u32'> {
  const words = new Uint32Array(Math.ceil(bytes.length / 4))
  new Uint8Array(words.buffer).set(bytes)
  return scope.upload('u32', [words.length], words, label)
}

/** An NF4 weight as the shaders of packed.wgsl read it. @throws RangeError when its parts do not fit each other. */
export function packedNf4(op: string, { shape, codes, scales }: Nf4Weight): PackedWeight {
  const [n, k] = shape
  const fault = (reason: string) => new RangeError(`Cannot ${op} weight ${showShape(shape)}: ${reason}`)
  if (shape.length !== 2 || k % 8 !== 0) throw fault('it must be (N, K) with K a multiple of 8')
  const blocks = Math.ceil((n * k) / 64)
  if (codes.size !== (n * k) / 8) throw fault(`it needs ${(n * k) / 8} words, got ${codes.size}`)
  if (scales instanceof Tensor) {
    if (scales.size !== blocks) throw fault(`it needs ${blocks} scales, got ${scales.size}`)
    const parts = { codes, scales, scale_codes: codes, scale_map: scales }
    return { shape, form: 0, ...parts, offset: 0, bytes: codes.bytes + scales.bytes }
  }
  const { codes: scale_codes, map: scale_map, absmax, offset } = scales
  const [words, outer] = [Math.ceil(blocks / 4), Math.ceil(blocks / 256)]
  if (scale_codes.size !== words || absmax.size !== outer || scale_map.size !== 256)
    throw fault(
      `its nested scales need ${words} words, a map of 256 and ${outer} absmax, ` +
        `got ${scale_codes.size}, ${scale_map.size} and ${absmax.size}`,
    )
  const bytes = codes.bytes + scale_codes.bytes + scale_map.bytes + absmax.bytes
  return { shape, form: 1, codes, scales: absmax, scale_codes, scale_map, offset, bytes }
}

/**
 * The whole matrix, decoded: level(code) · scale.
 * @param dtype of the result.
 * @returns (N, K). It has no gradient: quantised weights are frozen.
 * @see Dettmers et al., QLoRA, 2023, section 3.
 */
export function dequantizeNf4<D extends FloatType>(step: Step, weight: Nf4Weight, dtype: D): Tensor<D> {
  return packedDequantize(step, packedNf4('dequantizeNf4', weight), dtype)
}

/**
 * x · weightᵀ with the weight read in its packed form, forward and for dx; replaces `linear(x, dequantizeNf4(weight))`.
 * @param x f32 or f16 (…, K).
 * @returns the dtype of `x`, (…, N). The weight is frozen and gets no gradient.
 * @throws RangeError when the sizes of K differ.
 */
export function nf4Linear<D extends FloatType>(step: Step, x: Tensor<D>, weight: Nf4Weight): Tensor<D> {
  return packedLinear(step, 'nf4Linear', x, packedNf4('nf4Linear', weight))
}
