import type { DType, FloatType } from '../core/dtype.ts'
import type { Tensor } from './tensor.ts'

/** A storage buffer that an entry point reaches. `elem` and `stored` are f32 or f16, each the same for all of one dispatch. */
export interface Binding {
  readonly binding: number
  readonly access: 'read' | 'read_write'
  readonly type: 'elem' | 'stored' | DType
  /** Scalars in one element: 4 for `array<vec4<f32>>`. */
  readonly width: number
}

/** The uniform struct of an entry point. */
export interface Params {
  readonly binding: number
  readonly bytes: number
  readonly members: Readonly<Record<string, { readonly offset: number; readonly type: string }>>
}

/** An entry point of a shader with its interface, as scripts/embed-wgsl reads it from the WGSL. */
export interface Entry {
  readonly kernel: string
  readonly entry: string
  /** WGSL, linked with f32 for both storage types: {@link withTypes} writes others in. */
  readonly source: string
  /** Storage types of `elem` that it runs with. */
  readonly types: readonly FloatType[]
  readonly bindings: Readonly<Record<string, Binding>>
  readonly params: Params | null
  readonly constants: Readonly<Record<string, string>>
}

/** `source` for activations of one storage type and weights of another. */
export function withTypes(source: string, elem: FloatType, stored: FloatType): string {
  const text = source
    .replace('alias elem = f32;', `alias elem = ${elem};`)
    .replace('alias stored = f32;', `alias stored = ${stored};`)
  return text === source ? source : `enable f16;\n${text}`
}

/** The tensors that `E` must be given, by the names of its bindings in the WGSL. */
export type Operands<E extends Entry> = {
  readonly [Name in keyof E['bindings']]: Tensor<
    E['bindings'][Name]['type'] extends 'elem' | 'stored' ? FloatType : Extract<E['bindings'][Name]['type'], DType>
  >
}

/** The numbers that `E` must be given, by the names in its uniform struct. */
export type ParamValues<E extends Entry> = E['params'] extends Params
  ? { readonly [Name in keyof E['params']['members']]: number }
  : Readonly<Record<string, never>>

/** How a dispatch is laid out and what it costs. */
export interface Dispatch<E extends Entry = Entry> {
  /** Workgroups in x, y, z; missing ones are 1. */
  readonly workgroups: readonly number[]
  /** Floating-point operations of this dispatch. */
  readonly flops: number
  /** Fewest bytes the dispatch must move; by default the bytes of all its operands. */
  readonly bytes?: number
  /** Values of `override` constants. */
  readonly constants?: { readonly [Name in keyof E['constants']]?: number }
}

/** Most workgroups that WebGPU dispatches in one dimension. */
export const maxWorkgroups = 65_535

/**
 * `count` workgroups folded into two dimensions; the shader unfolds them with `flat_workgroup`.
 * @returns [x, y] with x·y ≥ count, so the shader must check its index.
 */
export function grid(count: number): [number, number] {
  const y = Math.ceil(count / maxWorkgroups)
  return [Math.ceil(count / Math.max(y, 1)), y]
}
