import { centre } from '../../src/kernels/centre.ts'
import { shrinkSketch } from '../../src/kernels/frequent-directions.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { addColumnSums, addScatter, triangleSize, unpackTriangle } from '../../src/kernels/scatter.ts'
import { zeros } from '../../tests/reference/array64.ts'
import { centre64, columnSums64, scatter64, shrink64 } from '../../tests/reference/pca.ts'
import { product } from '../../tests/reference/products.ts'
import { type Case, define, type Maker } from './case.ts'

const [samples, columns] = [2048, 256]
const batch = (make: Maker) => ({
  ...{ x: make.constant(samples, columns), weights: make.positive(samples), shift: make.constant(columns) },
})
const triangle = triangleSize(columns)

/** What streaming PCA is made of. */
export const pcaCases: readonly Case[] = [
  define({
    name: 'PCA update 2048×256: triangle of the scatter, sums',
    inputs: (make) => ({
      ...{ ...batch(make), scatterHi: make.zeros(triangle), scatterLo: make.zeros(triangle) },
      ...{ sumsHi: make.zeros(columns), sumsLo: make.zeros(columns) },
    }),
    op(step, { x, weights, shift, scatterHi, scatterLo, sumsHi, sumsLo }) {
      addColumnSums(step, { hi: sumsHi, lo: sumsLo }, x, weights, shift)
      addScatter(step, { hi: scatterHi, lo: scatterLo }, x, weights, shift)
      return [sumsHi, scatterHi]
    },
    reference({ x, weights, shift }, [, made]) {
      // The triangle as the kernel packs it; what it holds of the other half is nobody's.
      const packed = zeros(triangle)
      packed.data.set(made)
      const places = unpackTriangle(
        columns,
        [...packed.data.keys()],
        packed.data.map(() => 0),
      )
      for (const [i, value] of scatter64(x, weights, shift).data.entries()) packed.data[places[i]] = value
      return [columnSums64(x, weights, shift), packed]
    },
  }),
  define({
    name: 'PCA update 2048×256 of plain ops: centre, then matmul',
    inputs: batch,
    op(step, { x, weights, shift }) {
      const moved = centre(step, x, weights, shift)
      return matmul(step, moved, moved, { transposeA: true })
    },
    reference({ x, weights, shift }) {
      const moved = centre64(x, weights, shift)
      return product(moved, moved, true)
    },
  }),
  define({
    name: 'PCA shrink of Frequent Directions 32×512',
    tolerance: 1e-5, // of eigenvectors in f32
    inputs: (make) => ({ buffer: make.constant(32, 512), shed: make.zeros(1) }),
    op(step, { buffer, shed }) {
      shrinkSketch(step, buffer, shed, 16)
      return [buffer, shed]
    },
    reference({ buffer }, [made]) {
      const { sketch, shed } = shrink64(buffer, 16, made)
      return [sketch, { shape: [1], data: Float64Array.of(shed) }]
    },
  }),
]
