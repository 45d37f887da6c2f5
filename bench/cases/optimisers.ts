import { adamw } from '../../src/kernels/adamw.ts'
import { adamw8 } from '../../src/kernels/adamw8.ts'
import type { Case } from './case.ts'

/** Steps of the optimisers. */
export const optimisersCases: readonly Case[] = [
  {
    name: 'adamw 1 million parameters',
    backward: false,
    setup(make) {
      const [weight, gradient] = [make.constant(1024, 1024), make.constant(1024, 1024)]
      const [m, v] = [make.constant(1024, 1024), make.positive(1024, 1024)]
      return (step) => adamw(step, [{ weight, gradient, m, v, decay: 0.01 }], { rates: { lr: 1e-6, t: 10 }, clip: 1 })
    },
  },
  {
    name: 'adamw8 1 million parameters',
    backward: false,
    setup(make) {
      const [weight, gradient, largest] = [make.constant(1024, 1024), make.constant(1024, 1024), make.positive(4096, 2)]
      const codes = () => make.ids(2 ** 32, 2 ** 18)
      const maps = make.dynamicMaps()
      const target = { weight, gradient, m: codes(), v: codes(), largest, decay: 0.01 }
      return (step) => adamw8(step, [target], { rates: { lr: 1e-6, t: 10 }, clip: 1, maps })
    },
  },
]
