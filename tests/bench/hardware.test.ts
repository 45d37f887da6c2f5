import { expect, test } from 'vitest'
import { deviceTime } from '../../bench/device-time.ts'
import { Drawn } from '../../bench/hardware/drawn.ts'
import { drawnSum, Spot, spotNN, spotNT, spotTN } from '../../bench/hardware/spot.ts'
import { decodeWork, layerWork, type Ready, tolerances } from '../../bench/hardware/work.ts'
import { Random } from '../../src/core/random.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { gpu } from '../gpu.ts'
import { layer, product } from '../reference/products.ts'

const sizes = { width: 64, ffnWidth: 128, heads: 4, kvHeads: 2, headSize: 32, vocabulary: 256 }

test('all work at the sizes of decoders passes its check, and a moved result does not', async () => {
  const { f16 } = gpu.capabilities
  const work = [
    ...layerWork(sizes, 2, 6, 'f32'),
    ...(f16 ? layerWork(sizes, 2, 6, 'f16') : []),
    ...decodeWork(sizes, f16),
  ]
  for (const { name, dtype, prepare } of work) {
    using held = new DisposableStack()
    using scope = gpu.scope(name)
    const ready: Ready = prepare(scope, held)
    using step = gpu.step()
    const made = ready.run(step)
    const { error } = await ready.check(step, made)
    expect(error, `${name} ${dtype}`).toBeLessThan(tolerances[dtype])
    if (made.length === 0) continue
    const moved = made.map((y) => step.filled(y.dtype, y.shape, 0.5))
    expect((await ready.check(step, moved)).error, `${name} ${dtype}, moved`).toBeGreaterThan(0.1)
  }
})

test('what is known of a drawn matrix is the matrix', async () => {
  using scope = gpu.scope('drawn')
  const random = new Random(3)
  const [x, weight, g] = [[700, 64] as const, [640, 64] as const, [700, 640] as const].map(
    (shape) => new Drawn(random, 'f32', shape),
  )
  const whole = (drawn: Drawn) => ({
    shape: [drawn.rows, drawn.columns],
    data: Float64Array.from(
      { length: drawn.rows * drawn.columns },
      (_, i) => drawn.row(Math.floor(i / drawn.columns))[i % drawn.columns],
    ),
  })
  expect(Array.from(await gpu.read(x.upload(scope)))).toEqual(Array.from(whole(x).data))
  const factors = Float64Array.from({ length: x.rows }, (_, r) => Math.sin(r))
  const { data } = product({ shape: [1, x.rows], data: factors }, whole(x))
  for (const [c, value] of drawnSum(x, factors).entries()) expect(value).toBeCloseTo(data[c], 9)
  using step = gpu.step()
  const put = (values: { shape: readonly number[]; data: Float64Array }) =>
    step.upload('f32', values.shape, values.data)
  const products = [
    await spotNT(step, put(layer(whole(x), whole(weight))), x, weight),
    await spotNN(step, put(product(whole(g), whole(weight))), g, weight),
    await spotTN(step, put(product(whole(g), whole(x), true)), g, x),
  ]
  for (const { error } of products) expect(error).toBeLessThan(1e-7)
})

test('a spot tells what is off, and NaN from a number', () => {
  const spot = new Spot()
  spot.seeAll([1, 2, 4.5], [1, 2, 4])
  expect(spot.error).toBe(0.5 / 4)
  spot.see(Number.NaN, 1)
  expect(spot.error).toBe(Number.POSITIVE_INFINITY)
  expect(() => spot.seeAll([1], [1, 2])).toThrow('Cannot compare 1 elements with 2')
})

test("kernels are timed by the GPU's clock, without those that came before", async () => {
  using scope = gpu.scope('timed')
  const [x, z] = [0, 1].map(() => scope.filled('f32', [128, 128], 1))
  const one = await deviceTime(gpu, (step) => void matmul(step, x, z))
  expect(one.flops).toBe(2 * 128 ** 3)
  expect(one.median).toBeGreaterThan(0)
  const rest = await deviceTime(
    gpu,
    (step) => void matmul(step, matmul(step, x, z), z),
    (step) => void matmul(step, x, z),
  )
  expect(rest.flops).toBe(one.flops)
})
