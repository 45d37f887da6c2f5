import type { Shape } from '../core/shape.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** A quantised weight (N, K), K a multiple of 8, as the shaders read it: see wgsl/lib/packed.wgsl. */
export interface PackedWeight {
  readonly shape: Shape
  /** 0 NF4, 1 NF4 with nested scales, 2 int8. */
  readonly form: 0 | 1 | 2
  readonly codes: Tensor<'u32'>
  readonly scales: Tensor<'f32'>
  /** Of form 1; the others give any tensors. */
  readonly scale_codes: Tensor<'u32'>
  readonly scale_map: Tensor<'f32'>
  /** What form 1 adds to every scale. */
  readonly offset: number
  /** Bytes of all its parts. */
  readonly bytes: number
}

/** What a product binds and is told of its weight. */
export function weightOperands({ codes, scales, scale_codes, scale_map }: PackedWeight) {
  return { codes, scales, scale_codes, scale_map }
}
