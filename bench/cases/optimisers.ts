import { dynamicMap, unsignedDynamicMap } from '../../src/formats/dynamic-map.ts'
import { adamw } from '../../src/kernels/adamw.ts'
import { adamw8 } from '../../src/kernels/adamw8.ts'
import { adamw64, moments64 } from '../../tests/reference/optimisers.ts'
import { type Case, define } from './case.ts'

const [lr, t, decay, clip] = [1e-2, 10, 0.01, 1]

/** Steps of the optimisers, in place. */
export const optimisersCases: readonly Case[] = [
  define({
    name: 'adamw 1 million parameters',
    inputs: (make) => ({
      ...{ weight: make.constant(1024, 1024), gradient: make.constant(1024, 1024) },
      ...{ m: make.constant(1024, 1024), v: make.positive(1024, 1024) },
    }),
    op(step, { weight, gradient, m, v }) {
      adamw(step, [{ weight, gradient, m, v, decay }], { rates: { lr, t }, clip })
      return [weight, m, v]
    },
    reference({ weight, gradient, m, v }) {
      const moved = [weight, m, v].map(({ shape, data }) => ({ shape, data: data.slice() }))
      const [w, first, second] = moved.map(({ data }) => data)
      adamw64({ weight: w, m: first, v: second }, gradient.data, { lr, t, decay, clip })
      return moved
    },
  }),
  define({
    name: 'adamw8 1 million parameters',
    inputs: (make) => ({
      ...{ weight: make.constant(1024, 1024), gradient: make.constant(1024, 1024), largest: make.positive(4096, 2) },
      ...{ m: make.ids(2 ** 32, 2 ** 18) },
      // The high bit of each code is set: second moments near zero would make steps of a million.
      v: make.given(
        'u32',
        [2 ** 18],
        make.ids(2 ** 32, 2 ** 18).values.data.map((word) => (word | 0x80808080) >>> 0),
      ),
      maps: make.given('f32', [512], [...dynamicMap, ...unsignedDynamicMap]),
    }),
    op(step, { weight, gradient, largest, m, v, maps }) {
      adamw8(step, [{ weight, gradient, m, v, largest, decay }], { rates: { lr, t }, clip, maps })
      return [weight, largest]
    },
    // The tests judge the codes, which halfway between two values may be either.
    reference({ weight, gradient, largest, m, v, maps }) {
      const moved = { shape: weight.shape, data: weight.data.slice() }
      const most = { shape: largest.shape, data: new Float64Array(largest.data.length) }
      const first = moments64(m.data, maps.data.subarray(0, 256), (block) => largest.data[2 * block])
      const second = moments64(v.data, maps.data.subarray(256), (block) => largest.data[2 * block + 1])
      adamw64({ weight: moved.data, m: first, v: second }, gradient.data, { lr, t, decay, clip })
      for (const [i, value] of first.entries()) {
        const at = 2 * (i >> 8)
        most.data[at] = Math.max(most.data[at], Math.abs(value))
        most.data[at + 1] = Math.max(most.data[at + 1], second[i])
      }
      return [moved, most]
    },
  }),
]
