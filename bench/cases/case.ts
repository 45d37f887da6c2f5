import { type DType, decode, encode, type FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { sizeOf } from '../../src/core/shape.ts'
import { dequantizeInt8, quantizeInt8 } from '../../src/formats/int8.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { type Int8Weight, uploadInt8 } from '../../src/kernels/int8.ts'
import { type Nf4Weight, uploadNf4 } from '../../src/kernels/nf4.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import type { Array64 } from '../../tests/reference/array64.ts'

/** An input of a case: its values as the GPU will see them, and how it gets there. */
export interface Input<OnGpu> {
  readonly values: Array64
  /** Whether the op's gradient is taken to it. */
  readonly trained: boolean
  upload(scope: Scope): OnGpu
}

/** Inputs by name. */
export type Inputs = Readonly<Record<string, Input<unknown>>>
/** The same on the GPU. */
export type OnGpu<I extends Inputs> = { readonly [Name in keyof I]: I[Name] extends Input<infer G> ? G : never }
/** The same in f64. */
export type Values<I extends Inputs> = { readonly [Name in keyof I]: Array64 }

/** One op at one size: its inputs, what is timed, and what should come out. */
export interface CaseOf<I extends Inputs> {
  readonly name: string
  /** Seeded: every call makes the same. The backward pass is timed too where some input is trained. */
  inputs(make: Maker): I
  /** What is timed. It gives all that it made, or wrote into its inputs. */
  op(step: Step, inputs: OnGpu<I>): Tensor | readonly Tensor[]
  /**
   * What the op should have given, in f64, as many as it gives. Where several answers are right, it may look at what was
   * `made`. With trained inputs it must not, because it is differentiated.
   */
  reference(inputs: Values<I>, made: readonly ArrayLike<number>[]): Array64 | readonly Array64[]
  /** Largest error that passes, over the largest magnitude: 2e-6 unless told. Of gradients, four times that. */
  readonly tolerance?: number
}

/** A case of whatever inputs. */
export type Case = CaseOf<Inputs>

/** The case as it is; the names and types of its inputs are known inside it. */
export function define<I extends Inputs>(item: CaseOf<I>): Case {
  return item
}

/** Makes inputs, each of them from the next values of one seeded sequence. */
export class Maker {
  readonly #random = new Random(1)

  /** These values. */
  given<D extends DType>(
    dtype: D,
    shape: readonly number[],
    values: ArrayLike<number>,
    trained = false,
  ): Input<Tensor<D>> {
    const data = encode(dtype, values)
    return {
      values: { shape, data: Float64Array.from(decode(dtype, data)) },
      trained,
      upload(scope) {
        const tensor = scope.upload(dtype, shape, data)
        tensor.requiresGrad = trained
        return tensor
      },
    }
  }

  /** Normal values that are trained. */
  normal(...shape: number[]): Input<Tensor<'f32'>> {
    return this.given('f32', shape, this.#random.normals(sizeOf(shape)), true)
  }

  /** Normal values that are not. */
  constant(...shape: number[]): Input<Tensor<'f32'>> {
    return this.given('f32', shape, this.#random.normals(sizeOf(shape)))
  }

  /** Magnitudes of normal values. */
  positive(...shape: number[]): Input<Tensor<'f32'>> {
    return this.given('f32', shape, this.#random.normals(sizeOf(shape)).map(Math.abs))
  }

  /** Minus the magnitudes of normal values, trained: rates of decay. */
  negative(...shape: number[]): Input<Tensor<'f32'>> {
    const rates = this.#random.normals(sizeOf(shape)).map((value) => -Math.abs(value))
    return this.given('f32', shape, rates, true)
  }

  /** Zeros. */
  zeros(...shape: number[]): Input<Tensor<'f32'>> {
    return this.given('f32', shape, new Float32Array(sizeOf(shape)))
  }

  /** Normal values in half precision. */
  half(trained: boolean, ...shape: number[]): Input<Tensor<'f16'>> {
    return this.given('f16', shape, this.#random.normals(sizeOf(shape)), trained)
  }

  /** Integers below `end`. */
  ids(end: number, ...shape: number[]): Input<Tensor<'u32'>> {
    return this.given(
      'u32',
      shape,
      Uint32Array.from({ length: sizeOf(shape) }, () => this.#random.integer(end)),
    )
  }

  /** In each row `k` different integers below `end`. */
  differentIds(end: number, rows: number, k: number): Input<Tensor<'u32'>> {
    const stride = Math.floor(end / k)
    const ids = Uint32Array.from({ length: rows * k }, (_, i) => (i % k) * stride + this.#random.integer(stride))
    return this.given('u32', [rows, k], ids)
  }

  /** Integers from 0 on. */
  counting(...shape: number[]): Input<Tensor<'u32'>> {
    return this.given(
      'u32',
      shape,
      Uint32Array.from({ length: sizeOf(shape) }, (_, i) => i),
    )
  }

  /** A weight in NF4, its scales plain or nested. */
  nf4(n: number, k: number, doubleQuant = false): Input<Nf4Weight> {
    const packed = quantizeNf4(this.#random.normals(n * k), [n, k], { doubleQuant })
    const values = { shape: [n, k], data: Float64Array.from(dequantizeNf4(packed)) }
    return { values, trained: false, upload: (scope) => uploadNf4(scope, packed) }
  }

  /** A weight in int8. */
  int8(n: number, k: number): Input<Int8Weight> {
    const packed = quantizeInt8(this.#random.normals(n * k), [n, k])
    const values = { shape: [n, k], data: Float64Array.from(dequantizeInt8(packed)) }
    return { values, trained: false, upload: (scope) => uploadInt8(scope, packed) }
  }

  /** A frozen weight in one of the formats. */
  weight(kind: WeightKind, n: number, k: number): Input<Tensor<FloatType> | Nf4Weight | Int8Weight> {
    if (kind === 'dense') return this.constant(n, k)
    return kind === 'int8' ? this.int8(n, k) : this.nf4(n, k, kind === 'nested nf4')
  }
}

/** Formats of weights. */
export type WeightKind = 'dense' | 'nf4' | 'nested nf4' | 'int8'

/** Rows and columns of work on rows. */
export const rows = 2048
export const width = 512

/** A map of one tensor. */
export function unary(
  name: string,
  op: (step: Step, x: Tensor<'f32'>) => Tensor,
  reference: (x: Array64) => Array64,
  tolerance?: number,
): Case {
  return define({
    name: `${name} ${rows}×${width}`,
    tolerance,
    inputs: (make) => ({ x: make.normal(rows, width) }),
    op: (step, { x }) => op(step, x),
    reference: ({ x }) => reference(x),
  })
}

/** A map of two tensors. */
export function binary(
  name: string,
  op: (step: Step, x: Tensor<'f32'>, z: Tensor<'f32'>) => Tensor,
  reference: (x: Array64, z: Array64) => Array64,
  tolerance?: number,
): Case {
  return define({
    name: `${name} ${rows}×${width}`,
    tolerance,
    inputs: (make) => ({ x: make.normal(rows, width), z: make.normal(rows, width) }),
    op: (step, { x, z }) => op(step, x, z),
    reference: ({ x, z }) => reference(x, z),
  })
}
