import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DeviceLostError, ResourceError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { adamw, adamwRates } from '../../src/kernels/adamw.ts'
import { add } from '../../src/kernels/add.ts'
import { copy } from '../../src/kernels/copy.ts'
import { mul, scale } from '../../src/kernels/elementwise.ts'
import { embedding } from '../../src/kernels/embedding.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { sum } from '../../src/kernels/reduce.ts'
import { checkpoint } from '../../src/runtime/checkpoint.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { sizeClass } from '../../src/runtime/pool.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { expectClose } from '../check-op.ts'
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
    ...{ f16: false, subgroups: false, subgroupSize: expect.any(Number), timestamps: false, matrixUnits: 0 },
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
  const row = report.find(({ kernel }) => kernel === 'elementwise-quads.scale')!
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

test('a checkpoint gives the same gradients with less memory', () =>
  withoutLeaks(async () => {
    const run = async (wrap: boolean) => {
      using step = gpu.step()
      const x = step.upload('f32', [64, 64], new Random(1).normals(4096))
      const factor = step.upload('f32', [64, 64], new Random(2).normals(4096))
      x.requiresGrad = factor.requiresGrad = true
      const most = gpu.watchPeak()
      const work = (inner: Step, input: Tensor<'f32'>) => {
        let y = input
        for (let i = 0; i < 8; i++) y = add(inner, mul(inner, scale(inner, y, 0.5), factor), input)
        return y
      }
      let y = x
      for (let i = 0; i < 4; i++) {
        const input = y
        y = wrap ? checkpoint(step, 'part', [input, factor], (inner) => work(inner, input)) : work(step, input)
      }
      const gradients = step.backward(sum(step, y))
      const values = [await step.read(gradients.get(x)), await step.read(gradients.get(factor))]
      return { values, most: most(), dispatches: step.cost.dispatches }
    }
    const [plain, wrapped] = [await run(false), await run(true)]
    // Sums over the parts are added in another order.
    for (const [i, values] of wrapped.values.entries()) expectClose(`gradient ${i}`, values, plain.values[i], 1e-6)
    expect(wrapped.most).toBeLessThan(plain.most / 2)
    expect(wrapped.dispatches).toBeGreaterThan(plain.dispatches)
  }))

test('rows are a window on the same memory', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const x = step.upload(
      'f32',
      [3, 64],
      Float32Array.from({ length: 192 }, (_, i) => i),
    )
    const window = step.rows(x, 1, 2)
    expect([...(await step.read(window))]).toEqual([...(await step.read(x))].slice(64, 128))
    copy(step, scale(step, window, 2), step.rows(x, 2, 3))
    expect((await step.read(x))[130]).toBe(2 * 66)
    expect(() => step.rows(x, 2, 4)).toThrow('Cannot take rows 2 to 4 of x [3,64]')
    expect(() => step.rows(step.filled('f32', [3, 5], 0), 1, 2)).toThrow('byte 20 is no multiple of 256')
  }))

test('a recording runs again on what its inputs hold', () =>
  withoutLeaks(async () => {
    using scope = gpu.scope('inputs')
    const x = scope.filled('f32', [64], 1)
    const result = scope.empty('f32', [64])
    using recording = gpu.record((step) => {
      const ones = step.filled('f32', [64], 1)
      const y = checkpoint(step, 'part', [x], (inner) => add(inner, scale(inner, x, 2), inner.filled('f32', [64], 0.5)))
      copy(step, add(step, y, ones), result)
    })
    expect(recording.cost.dispatches).toBe(4)
    for (const value of [1, 5, -2]) {
      gpu.write(x, new Float32Array(64).fill(value))
      recording.replay()
      // Other work takes memory from the pool between two replays, and must not meet the recording's.
      using other = gpu.step()
      const noise = [1, 2, 3, 4].map(() => other.filled('f32', [64], 99))
      recording.replay()
      expect((await gpu.read(result))[7]).toBe(2 * value + 1.5)
      for (const tensor of noise) expect((await gpu.read(tensor))[7]).toBe(99)
    }
  }))

test('a recording cannot read, and not run after its end', () =>
  withoutLeaks(async () => {
    let failure: Promise<unknown> | undefined
    const recording = gpu.record((step) => {
      failure = step.read(step.filled('f32', [4], 1)).catch((error) => error)
    })
    expect(String(await failure)).toContain('Cannot read from the GPU within a recording')
    recording[Symbol.dispose]()
    expect(() => recording.replay()).toThrow('disposed of')
    expect(() =>
      gpu.record((step) => {
        step.filled('f32', [4], 1)
        gpu.record(() => {})
      }),
    ).toThrow('within a recording')
    expect(() => {
      using step = gpu.step()
      add(step, step.filled('f32', [4], 1), step.filled('f32', [4], 1))
    }).not.toThrow()
  }))

test('a replayed training step equals fresh ones', () =>
  withoutLeaks(async () => {
    const rows = (seed: number) => new Random(seed).normals(8 * 16)
    const setUp = (scope: Scope) => {
      const weight = scope.upload('f32', [16, 16], new Random(1).normals(256))
      weight.requiresGrad = true
      const [m, v] = [scope.filled('f32', [16, 16], 0), scope.filled('f32', [16, 16], 0)]
      const train = (step: Step, x: Tensor<'f32'>, rates: Parameters<typeof adamw>[2]['rates']) => {
        const gradient = step.backward(sum(step, mul(step, linear(step, x, weight), x))).get(weight)
        adamw(step, [{ weight, gradient, m, v, decay: 0.1 }], { rates, clip: 1 })
      }
      return { weight, train }
    }
    using scope = gpu.scope('training')
    const fresh = setUp(scope)
    for (let t = 1; t <= 4; t++) {
      using step = gpu.step()
      fresh.train(step, step.upload('f32', [8, 16], rows(t)), { lr: 0.1 / t, t })
    }
    const again = setUp(scope)
    const x = scope.empty('f32', [8, 16])
    const rates = scope.empty('f32', [3])
    using recording = gpu.record((step) => again.train(step, x, rates))
    for (let t = 1; t <= 4; t++) {
      gpu.write(x, rows(t))
      gpu.write(rates, adamwRates({ lr: 0.1 / t, t }))
      recording.replay()
    }
    expect(await gpu.read(again.weight)).toEqual(await gpu.read(fresh.weight))
  }))

test('a plan says what a step really uses, before it is run', () =>
  withoutLeaks(async () => {
    using scope = gpu.scope('weights')
    const weight = scope.upload('f32', [48, 48], new Random(1).normals(48 * 48))
    weight.requiresGrad = true
    const work = (step: Step) => {
      const x = step.upload('f32', [100, 48], new Random(2).normals(4800))
      const y = checkpoint(step, 'part', [x, weight], (inner) =>
        scale(inner, mul(inner, linear(inner, x, weight), linear(inner, x, weight)), 0.5),
      )
      step.backward(sum(step, y))
    }
    const before = gpu.memory
    const plan = gpu.plan(work)
    expect(gpu.memory).toEqual(before)
    const most = gpu.watchPeak()
    using step = gpu.step()
    work(step)
    expect(plan.peakBytes).toBe(most() - before.liveBytes)
    expect(plan.cost).toEqual(step.cost)
    await step.gpu.finish()
  }))

test('what does not fit is refused with the numbers', async () => {
  using small = await Gpu.open(await openGpuRoot(), { memoryBudget: 2 ** 20 })
  expect(() =>
    small.expectRoom('this', (step) => {
      for (let i = 0; i < 8; i++) step.filled('f32', [2 ** 16], 0)
    }),
  ).toThrow('Cannot run this: it needs 2 MiB beside the 0 MiB in use, and the budget is 1 MiB. Use a smaller batch')
  expect(small.memory.liveBytes).toBe(0)
})

test('a matrix larger than one binding lies in windows, and is read, written and multiplied as one', async () => {
  using small = await Gpu.open(await openGpuRoot(), { bindingBytes: 8192 })
  const random = new Random(6)
  const values = random.normals(300 * 8)
  using scope = small.scope('large')
  const weight = scope.upload('f32', [300, 8], values)
  expect(weight.windows?.map(({ shape }) => shape[0])).toEqual([256, 44])
  expect(await small.read(weight)).toEqual(values)
  const moved = values.map((value) => value + 1)
  small.writeRows(weight, 120, moved.subarray(120 * 8, 270 * 8))
  expect(await small.read(weight)).toEqual(values.map((value, i) => (i >= 960 && i < 2160 ? moved[i] : value)))
  small.writeRows(weight, 0, values)

  using step = small.step()
  const x = step.upload('f32', [5, 8], random.normals(40))
  x.requiresGrad = true
  const y = linear(step, x, weight)
  const dy = step.upload('f32', [5, 300], random.normals(1500))
  const dx = step.backward(y, { seed: dy }).get(x)
  const plain = (rows: number, columns: number, entry: (i: number, j: number) => number) =>
    Float64Array.from({ length: rows * columns }, (_, at) => entry(Math.floor(at / columns), at % columns))
  const [left, slope] = [await step.read(x), await step.read(dy)]
  const dot = (length: number, f: (i: number) => number) =>
    Array.from({ length }, (_, i) => f(i)).reduce((total, value) => total + value, 0)
  const want = plain(5, 300, (i, j) => dot(8, (k) => left[i * 8 + k] * values[j * 8 + k]))
  expectClose('product', await step.read(y), want, 2e-6)
  const wanted = plain(5, 8, (i, j) => dot(300, (k) => slope[i * 300 + k] * values[k * 8 + j]))
  expectClose('gradient', await step.read(dx), wanted, 4e-6)

  const ids = [0, 255, 256, 299, 300, 127]
  const rows = await step.read(embedding(step, weight, step.upload('u32', [6], ids)))
  for (const [i, id] of ids.entries())
    for (let c = 0; c < 8; c++) expect(rows[i * 8 + c]).toBe(id < 300 ? values[id * 8 + c] : Number.NaN)
  expect(() => scale(step, weight, 2)).toThrow('larger than one binding')
  expect(() => step.empty('f32', [70, 64])).toThrow('Cannot allocate')
})
