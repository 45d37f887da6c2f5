import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DeviceLostError, ResourceError } from '../../src/core/errors.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { add } from '../../src/kernels/add.ts'
import { mul, scale } from '../../src/kernels/elementwise.ts'
import { sum } from '../../src/kernels/reduce.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { sizeClass } from '../../src/runtime/pool.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

test('a step owns what is born in it', () => {
  const before = gpu.live
  {
    using step = gpu.step()
    step.upload('f32', [3], [1, 2, 3])
    add(step, step.filled('f32', [4], 1), step.filled('f32', [4], 2))
    expect(gpu.live).toBe(before + 4)
  }
  expect(gpu.live).toBe(before)
})

test('what is kept lives as long as its new owner', () =>
  withoutLeaks(async () => {
    using model = gpu.scope('model')
    const kept = (() => {
      using step = gpu.step()
      return step.keep(scale(step, step.upload('f32', [2], [1, 2]), 10), model)
    })()
    expect([...(await gpu.read(kept))]).toEqual([10, 20])
    expect(() => gpu.step().keep(kept, model)).toThrow('does not own its memory')
  }))

test('memory is used again, and a step that repeats gets the same buffers', () =>
  withoutLeaks(() => {
    const ids = () => {
      using step = gpu.step()
      return [100, 3000, 100].map((size) => step.filled('f32', [size], 0).block.id)
    }
    const first = ids()
    expect(ids()).toEqual(first)
    expect(ids()).toEqual(first)
  }))

test('size classes waste at most a fifth and never fall short', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 }), (bytes) => {
      const size = sizeClass(bytes)
      expect(size).toBeGreaterThanOrEqual(bytes)
      expect(size % 4).toBe(0)
      if (bytes > 256) expect(size / bytes).toBeLessThan(1.25)
    }),
    { seed: 42 },
  )
})

test('a write waits for the work recorded before it', () =>
  withoutLeaks(async () => {
    using scope = gpu.scope('input')
    const x = scope.upload('f32', [2], [1, 2])
    using step = gpu.step()
    const before = scale(step, x, 10)
    gpu.write(x, [5, 6])
    const after = scale(step, x, 10)
    expect([...(await step.read(before)), ...(await step.read(after))]).toEqual([10, 20, 50, 60])
  }))

test('dtypes survive upload and read, odd sizes of f16 too', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    expect([...(await step.read(step.upload('u32', [2], [7, 4294967295])))]).toEqual([7, 4294967295])
    expect([...(await step.read(step.upload('i32', [1], [-3])))]).toEqual([-3])
    expect([...(await step.read(step.upload('f16', [3], [1.5, -2, 65504])))]).toEqual([1.5, -2, 65504])
  }))

test('shapes and sizes are checked', () => {
  using step = gpu.step()
  expect(() => step.empty('f32', [2, 0])).toThrow(RangeError)
  expect(() => step.upload('f32', [3], [1])).toThrow('it has 3 elements, got 1')
  expect(() => step.reshape(step.filled('f32', [4], 1), [3])).toThrow('Cannot reshape x [4] to [3]')
  expect(() => add(step, step.filled('f32', [2], 1), step.filled('f16', [2], 1) as never)).toThrow(
    'b must be f32, got f16',
  )
})

test('gradients add up where a tensor is used twice, and only where they are wanted', async () => {
  using step = gpu.step()
  const x = step.upload('f32', [2], [3, 4])
  const frozen = step.upload('f32', [2], [10, 10])
  x.requiresGrad = true
  const loss = sum(step, add(step, mul(step, x, x), mul(step, x, frozen)))
  const gradients = step.backward(loss)
  expect([...(await step.read(gradients.get(x)))]).toEqual([16, 18])
  expect(gradients.has(frozen)).toBe(false)
  expect(() => gradients.get(frozen)).toThrow('the loss does not depend on it')
  expect(() => step.backward(x)).toThrow('a loss must have one element')
})

test('nothing is recorded without gradients', () => {
  using step = gpu.step()
  const x = step.filled('f32', [1], 1)
  x.requiresGrad = true
  const y = step.withoutGradients(() => scale(step, x, 2))
  expect(y.requiresGrad).toBe(false)
})

test('more than the device allows in one buffer, or than the budget, is refused with the numbers', async () => {
  using small = await Gpu.open(await openGpuRoot(), { memoryBudget: 1 << 20 })
  using scope = small.scope('big')
  expect(() => scope.empty('f32', [1 << 20])).toThrow(ResourceError)
  expect(() => scope.empty('f32', [1 << 20])).toThrow('would pass the budget of 1.0 MiB')
  expect(() => gpu.scope('x').empty('f32', [2 ** 20, 2 ** 14])).toThrow('one buffer may have')
  // Free blocks are given up before a request fails.
  for (const size of [1000, 100_000, 150_000]) {
    using step = small.step()
    step.empty('f32', [size])
  }
  expect(small.memory.liveBytes).toBe(0)
})

test('a lost device is a typed error that says what to do', async () => {
  const victim = await Gpu.open(await openGpuRoot())
  let told = ''
  victim.onLost((message) => {
    told = message
  })
  const step = victim.step()
  const x = step.filled('f32', [4], 1)
  victim.device.destroy()
  await victim.device.lost
  await expect(step.read(x)).rejects.toThrow(DeviceLostError)
  expect(() => victim.step()).toThrow('last checkpoint')
  expect(told).not.toBe('')
})

test('an injected device works without features that it was not given', async () => {
  const { adapter } = await openGpuRoot()
  using plain = new Gpu(await adapter.requestDevice())
  expect(plain.capabilities).toEqual({
    ...{ f16: false, subgroups: false, subgroupSize: expect.any(Number), timestamps: false },
  })
  using step = plain.step()
  const half = step.filled('f16', [2], 1)
  expect(() => scale(step, half, 2)).toThrow('this adapter has no shader-f16; use f32 tensors')
  await expect(plain.profile(async () => {})).rejects.toThrow('no timestamp-query')
  expect([...(await step.read(scale(step, step.filled('f32', [2], 1), 3)))]).toEqual([3, 3])
})

test('a profile names every kernel with its time and work', async () => {
  if (!gpu.capabilities.timestamps) return
  const report = await gpu.profile(async () => {
    using step = gpu.step()
    scale(step, scale(step, step.filled('f32', [100_000], 1), 2), 2)
    await gpu.finish()
  })
  const row = report.find(({ kernel }) => kernel === 'elementwise.scale')!
  expect(row.dispatches).toBe(2)
  expect(row.ms).toBeGreaterThan(0)
  expect(row.flops).toBe(200_000)
  expect(row.bytes).toBe(1_600_000)
})

test('more dispatches than one submit or one parameter arena holds run in order', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    let x = step.filled('f32', [1], 0)
    const one = step.filled('f32', [1], 1)
    for (let i = 0; i < 3000; i++) x = add(step, x, one)
    expect(await step.readNumber(x)).toBe(3000)
  }))
