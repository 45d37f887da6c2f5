import { centre } from '../../src/kernels/centre.ts'
import { shrinkSketch } from '../../src/kernels/frequent-directions.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { addColumnSums, addScatter, triangleSize } from '../../src/kernels/scatter.ts'
import type { Case } from './case.ts'

/** What streaming PCA is made of. */
export const pcaCases: readonly Case[] = [
  {
    name: 'PCA update 2048×256: triangle of the scatter, sums',
    backward: false,
    setup(make) {
      const [x, weights, shift] = [make.constant(2048, 256), make.positive(2048), make.constant(256)]
      const [scatter, sums] = [make.pair(triangleSize(256)), make.pair(256)]
      return (step) => {
        addColumnSums(step, sums, x, weights, shift)
        addScatter(step, scatter, x, weights, shift)
        return sums.hi
      }
    },
  },
  {
    name: 'PCA update 2048×256 of plain ops: centre, then matmul',
    backward: false,
    setup(make) {
      const [x, weights, shift] = [make.constant(2048, 256), make.constant(2048), make.constant(256)]
      return (step) => {
        const moved = centre(step, x, weights, shift)
        return matmul(step, moved, moved, { transposeA: true })
      }
    },
  },
  {
    name: 'PCA shrink of Frequent Directions 32×512',
    backward: false,
    setup(make) {
      const [buffer, shed] = [make.constant(32, 512), make.constant(1)]
      return (step) => {
        shrinkSketch(step, buffer, shed, 16)
        return shed
      }
    },
  },
]
