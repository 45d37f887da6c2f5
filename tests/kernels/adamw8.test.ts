import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { dynamicMap, unsignedDynamicMap } from '../../src/formats/dynamic-map.ts'
import { adamw } from '../../src/kernels/adamw.ts'
import { adamw8, zeroMoments8 } from '../../src/kernels/adamw8.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const upload = (scope: Scope) => scope.upload('f32', [512], [...dynamicMap, ...unsignedDynamicMap], 'maps')

test('the unsigned map has 256 different values from 0 to 1, and the signed one is as it was', () => {
  expect(new Set(unsignedDynamicMap).size).toBe(256)
  expect([unsignedDynamicMap[0], unsignedDynamicMap[255]]).toEqual([0, 1])
  expect(unsignedDynamicMap[1]).toBeCloseTo(1e-6 * 0.325, 12)
  expect(dynamicMap[127]).toBe(0)
  expect(new Set(dynamicMap).size).toBe(256)
})

/** The oracle's code: the nearest value by looking at all; the lower of two as near. */
function nearest(map: Float32Array, x: number): number {
  let best = 0
  for (let code = 1; code < 256; code++) if (Math.abs(map[code] - x) < Math.abs(map[best] - x)) best = code
  return best
}

test('three steps follow the formula, codes and all, over several blocks and a ragged end', () =>
  withoutLeaks(async () => {
    const random = new Random(3)
    const size = 2 * 256 + 37
    const start = random.normals(size)
    using state = gpu.scope('state')
    const weight = state.upload('f32', [size], start)
    const moments = zeroMoments8(state, size, 'w')
    const maps = upload(state)
    const oracle = { w: Float64Array.from(start), m: new Float64Array(size), v: new Float64Array(size) }
    const { lr, decay, clip, beta1, beta2, eps } = { lr: 0.01, decay: 0.1, clip: 3, beta1: 0.9, beta2: 0.95, eps: 1e-8 }
    for (let t = 1; t <= 3; t++) {
      using step = gpu.step()
      const g = random.normals(size).map((x, i) => x * 10 ** -(i % 5))
      const gradient = step.upload('f32', [size], g)
      const factor = await step.read(
        adamw8(step, [{ weight, gradient, ...moments, decay }], { rates: { lr, t }, clip, beta1, beta2, eps, maps }),
      )
      expectClose('norm', [factor[1]], [Math.hypot(...g)], 1e-6)
      for (let i = 0; i < size; i++) {
        oracle.m[i] = beta1 * oracle.m[i] + (1 - beta1) * g[i] * factor[0]
        oracle.v[i] = beta2 * oracle.v[i] + (1 - beta2) * (g[i] * factor[0]) ** 2
        const change = oracle.m[i] / (1 - beta1 ** t) / (Math.sqrt(oracle.v[i] / (1 - beta2 ** t)) + eps)
        oracle.w[i] = oracle.w[i] * (1 - lr * decay) - lr * change
      }
      const [m, v] = await Promise.all([gpu.read(moments.m), gpu.read(moments.v)])
      let different = 0
      for (let begin = 0; begin < size; begin += 256) {
        const end = Math.min(size, begin + 256)
        const mostM = Math.max(...oracle.m.subarray(begin, end).map(Math.abs))
        const mostV = Math.max(...oracle.v.subarray(begin, end))
        for (let i = begin; i < end; i++) {
          const codes = [m, v].map((words) => (words[i >> 2] >> (8 * (i & 3))) & 255)
          const wanted = [
            nearest(dynamicMap, oracle.m[i] / mostM),
            Math.max(1, nearest(unsignedDynamicMap, oracle.v[i] / mostV)),
          ]
          // Halfway between two codes, f32 and f64 may differ by one.
          for (const k of [0, 1]) expect(Math.abs(codes[k] - wanted[k])).toBeLessThanOrEqual(1)
          different += Number(codes[0] !== wanted[0]) + Number(codes[1] !== wanted[1])
          oracle.m[i] = Math.fround(dynamicMap[codes[0]] * mostM)
          oracle.v[i] = Math.fround(unsignedDynamicMap[codes[1]] * mostV)
        }
      }
      expect(different / size).toBeLessThan(0.01)
    }
    expectClose('weights', await gpu.read(weight), oracle.w, 1e-5)
  }))

test('on a quadratic it ends where AdamW does, with a quarter of the state, twice the same', () =>
  withoutLeaks(async () => {
    const size = 5 * 256
    const random = new Random(7)
    const target = random.normals(size)
    // Curvatures over two decades, so that the second moments of a block differ by four.
    const curvature = Float32Array.from({ length: size }, () => 10 ** (2 * random.uniform() - 1))
    const run = async (bits: 8 | 32) => {
      using state = gpu.scope('state')
      const weight = state.filled('f32', [size], 0)
      const maps = upload(state)
      const moments8 = zeroMoments8(state, size, 'w')
      const [m, v] = [state.filled('f32', [size], 0), state.filled('f32', [size], 0)]
      const losses: number[] = []
      const steps = 150
      for (let t = 1; t <= steps; t++) {
        using step = gpu.step()
        const w = await gpu.read(weight)
        losses.push(w.reduce((sum, x, i) => sum + (curvature[i] * (x - target[i]) ** 2) / 2, 0) / size)
        const gradient = step.upload(
          'f32',
          [size],
          w.map((x, i) => curvature[i] * (x - target[i])),
        )
        const options = { rates: { lr: 0.1 * (1 - t / steps) + 1e-4, t }, clip: 0 }
        if (bits === 8) adamw8(step, [{ weight, gradient, ...moments8, decay: 0 }], { ...options, maps })
        else adamw(step, [{ weight, gradient, m, v, decay: 0 }], options)
      }
      const bytes = moments8.m.bytes + moments8.v.bytes + moments8.largest.bytes
      return { losses, weights: await gpu.read(weight), share: bytes / (m.bytes + v.bytes) }
    }
    const [wide, narrow, again] = [await run(32), await run(8), await run(8)]
    expect(narrow.share).toBeCloseTo(0.25 + 1 / 256, 6)
    expect(wide.losses.at(-1)! / wide.losses[0]).toBeLessThan(1e-3)
    expect(narrow.losses.at(-1)! / narrow.losses[0]).toBeLessThan(1e-3)
    for (const at of [10, 30, 60]) expect(Math.abs(Math.log(narrow.losses[at] / wide.losses[at]))).toBeLessThan(0.2)
    expect([...again.weights]).toEqual([...narrow.weights])
  }))

test('a parameter whose gradients stop takes no leap, though its second moment is far below the largest', () =>
  withoutLeaks(async () => {
    using state = gpu.scope('state')
    const weight = state.filled('f32', [256], 0)
    const moments = zeroMoments8(state, 256, 'w')
    const maps = upload(state)
    for (let t = 1; t <= 4; t++) {
      using step = gpu.step()
      // v of element 1 is 1e-8 of the largest, below the smallest code; then its gradient vanishes.
      const gradient = step.upload(
        'f32',
        [256],
        Float32Array.from({ length: 256 }, (_, i) => (i === 0 ? 1 : t === 1 ? 1e-4 : 0)),
      )
      adamw8(step, [{ weight, gradient, ...moments, decay: 0 }], { rates: { lr: 0.01, t }, maps })
    }
    for (const x of await gpu.read(weight)) expect(Math.abs(x)).toBeLessThanOrEqual(0.0401)
  }))

test('sizes that do not fit are refused', () => {
  using step = gpu.step()
  using state = gpu.scope('state')
  const weight = state.filled('f32', [300], 0)
  const target = { weight, gradient: weight, ...zeroMoments8(state, 256, 'w'), decay: 0 }
  expect(() => adamw8(step, [target], { rates: { lr: 1, t: 1 }, maps: upload(state) })).toThrow(
    'Cannot adamw8 x [300]: m must be [128], got [64]',
  )
})
