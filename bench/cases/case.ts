import { Random } from '../../src/core/random.ts'
import { dynamicMap, unsignedDynamicMap } from '../../src/formats/dynamic-map.ts'
import { quantizeInt8 } from '../../src/formats/int8.ts'
import { quantizeNf4 } from '../../src/formats/nf4.ts'
import type { KvCache } from '../../src/kernels/attention-decode.ts'
import { uploadInt8 } from '../../src/kernels/int8.ts'
import { uploadNf4 } from '../../src/kernels/nf4.ts'
import { type Sampling, samplingSettings, type TokenState } from '../../src/kernels/sampler.ts'
import { type PairSum, pairSum } from '../../src/kernels/scatter.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'

/** One op at one size. */
export interface Case {
  readonly name: string
  /** Makes the inputs and gives back what to time. The last value is what a backward pass starts from. */
  setup(make: Maker): (step: Step) => Tensor
  /** Whether the backward pass is timed as well. */
  readonly backward: boolean
}

/** Makes inputs that live as long as the case. */
export class Maker {
  readonly #scope: Scope
  readonly #random = new Random(1)

  constructor(scope: Scope) {
    this.#scope = scope
  }

  /** Normal values that want a gradient. */
  normal(...shape: number[]): Tensor<'f32'> {
    const x = this.constant(...shape)
    x.requiresGrad = true
    return x
  }

  /** Normal values that want none. */
  constant(...shape: number[]): Tensor<'f32'> {
    return this.#scope.upload('f32', shape, this.#random.normals(shape.reduce((a, b) => a * b, 1)))
  }

  /** Magnitudes of normal values. */
  positive(...shape: number[]): Tensor<'f32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    return this.#scope.upload('f32', shape, this.#random.normals(size).map(Math.abs))
  }

  /** Minus the magnitudes of normal values, wanting a gradient: rates of decay. */
  negative(...shape: number[]): Tensor<'f32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    const x = this.#scope.upload(
      'f32',
      shape,
      this.#random.normals(size).map((value) => -Math.abs(value)),
    )
    x.requiresGrad = true
    return x
  }

  /** A sum that is kept as two floats. */
  pair(size: number): PairSum {
    return pairSum(this.#scope, size, 'sum')
  }

  /** Integers below `end`. */
  ids(end: number, ...shape: number[]): Tensor<'u32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    return this.#scope.upload(
      'u32',
      shape,
      Uint32Array.from({ length: size }, () => this.#random.integer(end)),
    )
  }

  /** A full cache of `keys` keys a row, in pages. */
  cache(batch: number, keys: number, pageSize: number, groups: number, headSize: number): KvCache<'f32'> {
    const pages = keys / pageSize
    const table = Uint32Array.from({ length: batch * pages }, (_, i) => i)
    const shape = [batch * pages, pageSize, groups, headSize]
    return {
      k: this.constant(...shape),
      v: this.constant(...shape),
      pageTable: this.#scope.upload('u32', [batch, pages], table),
      position: this.#scope.upload('u32', [batch], new Uint32Array(batch).fill(keys - 1)),
    }
  }

  /** What the sampler knows of `batch` rows of at most `capacity` tokens. */
  tokens(batch: number, capacity: number, sampling: Sampling): TokenState {
    const settings = Array.from({ length: batch }, () => samplingSettings(sampling)).flat()
    return {
      ids: this.ids(1000, batch, 1),
      position: this.ids(capacity - 1, batch),
      history: this.ids(1000, batch, capacity),
      settings: this.#scope.upload('f32', [batch, settings.length / batch], settings),
      seeds: this.ids(2 ** 31, batch),
    }
  }

  /** The values of the codes of 8-bit moments. */
  dynamicMaps(): Tensor<'f32'> {
    return this.#scope.upload('f32', [512], [...dynamicMap, ...unsignedDynamicMap])
  }

  /** A weight in NF4, its scales plain or nested. */
  nf4(n: number, k: number, doubleQuant = false) {
    return uploadNf4(this.#scope, quantizeNf4(this.#random.normals(n * k), [n, k], { doubleQuant }))
  }

  /** A weight in int8. */
  int8(n: number, k: number) {
    return uploadInt8(this.#scope, quantizeInt8(this.#random.normals(n * k), [n, k]))
  }

  /** A dense weight in half precision. */
  half(...shape: number[]): Tensor<'f16'> {
    return this.#scope.upload('f16', shape, this.#random.normals(shape.reduce((a, b) => a * b, 1)))
  }
}

/** Rows and columns of work on rows. */
export const rows = 2048
export const width = 512

/** A map of one tensor. */
export function unary(name: string, op: (step: Step, x: Tensor<'f32'>) => Tensor): Case {
  return {
    name: `${name} ${rows}×${width}`,
    backward: true,
    setup(make) {
      const x = make.normal(rows, width)
      return (step) => op(step, x)
    },
  }
}

/** A map of two tensors. */
export function binary(name: string, op: (step: Step, x: Tensor<'f32'>, z: Tensor<'f32'>) => Tensor): Case {
  return {
    name: `${name} ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, z] = [make.normal(rows, width), make.normal(rows, width)]
      return (step) => op(step, x, z)
    },
  }
}
