import { decode, encode, type FloatType } from '../../src/core/dtype.ts'
import type { Random } from '../../src/core/random.ts'
import { dequantizeNf4, nf4BlockSize, quantizeNf4 } from '../../src/formats/nf4.ts'
import { takeRows } from '../../src/kernels/embedding.ts'
import { type Nf4Weight, uploadNf4 } from '../../src/kernels/nf4.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'

const mostDrawn = 512

/**
 * A matrix too large to make and to check number by number: each of its rows is one of a few random ones, so the host
 * knows all of it, and the sum over its rows of anything is one over the few, each as often as it was drawn.
 */
export class Drawn<D extends FloatType = FloatType> {
  readonly dtype: D
  readonly rows: number
  readonly columns: number
  /** The few rows, as the GPU sees them. */
  readonly few: readonly Float64Array[]
  /** u32 (rows): which of them each row is. */
  readonly ids: Uint32Array<ArrayBuffer>

  constructor(random: Random, dtype: D, [rows, columns]: readonly [number, number], spread = 1) {
    this.dtype = dtype
    this.rows = rows
    this.columns = columns
    const values = random.normals(Math.min(rows, mostDrawn) * columns).map((value) => spread * value)
    const rounded = Float64Array.from(decode(dtype, encode(dtype, values)))
    this.few = Array.from({ length: Math.min(rows, mostDrawn) }, (_, i) =>
      rounded.subarray(i * columns, (i + 1) * columns),
    )
    this.ids = Uint32Array.from({ length: rows }, () => random.integer(this.few.length))
  }

  /** Row `r`, in f64. */
  row(r: number): Float64Array {
    return this.few[this.ids[r]]
  }

  /** The matrix on the GPU. */
  upload(scope: Scope): Tensor<D> {
    const y = scope.empty(this.dtype, [this.rows, this.columns])
    using step = scope.gpu.step()
    const table = step.upload(
      this.dtype,
      [this.few.length, this.columns],
      this.few.flatMap((row) => [...row]),
    )
    let first = 0
    for (const window of y.windows ?? [y]) {
      const ids = this.ids.slice(first, first + window.shape[0])
      takeRows(step, table, step.upload('u32', [ids.length], ids), window)
      first += ids.length
    }
    return y
  }
}

/** A weight (N, K) in NF4, drawn likewise. K is a multiple of 64. */
export class DrawnNf4 {
  readonly dense: Pick<Drawn, 'few' | 'ids' | 'row' | 'rows' | 'columns'>
  readonly #packed: ReturnType<typeof quantizeNf4>

  constructor(random: Random, [rows, columns]: readonly [number, number]) {
    const source = new Drawn(random, 'f32', [rows, columns])
    const table = quantizeNf4(Float32Array.from(source.few.flatMap((row) => [...row])), [source.few.length, columns])
    const values = Float64Array.from(dequantizeNf4(table))
    const few = source.few.map((_, i) => values.subarray(i * columns, (i + 1) * columns))
    const { ids } = source
    this.dense = { few, ids, rows, columns, row: (r) => few[ids[r]] }
    const [bytes, blocks] = [columns / 2, columns / nf4BlockSize]
    const codes = new Uint8Array(rows * bytes)
    const scales = new Float32Array(rows * blocks)
    for (const [r, id] of ids.entries()) {
      codes.set(table.codes.subarray(id * bytes, (id + 1) * bytes), r * bytes)
      scales.set(table.scales.subarray(id * blocks, (id + 1) * blocks), r * blocks)
    }
    this.#packed = { shape: [rows, columns], codes, scales }
  }

  upload(scope: Scope): Nf4Weight {
    return uploadNf4(scope, this.#packed)
  }
}
