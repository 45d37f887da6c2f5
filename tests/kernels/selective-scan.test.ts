import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { selectiveScan, selectiveScanStep } from '../../src/kernels/selective-scan.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import type { Array64 } from '../reference/array64.ts'
import { selectiveScan64 } from '../reference/state-space.ts'

/** Step sizes between 0.01 and about 1, rates between -0.2 and -5; normal values for all else. */
function values(random: Random, shape: readonly number[], input: number): number[] {
  const normals = [...random.normals(shape.reduce((size, dimension) => size * dimension, 1))]
  if (input === 1) return normals.map((value) => 0.01 + 0.3 * Math.abs(value))
  if (input === 2) return normals.map((value) => -Math.exp(0.8 * value) - 0.05)
  return normals
}

const shapes = (batch: number, tokens: number, channels: number, n: number) => [
  [batch, tokens, channels],
  [batch, tokens, channels],
  [channels, n],
  [batch, tokens, n],
  [batch, tokens, n],
]

checkOp('selectiveScan', {
  op: (step, x, delta, a, b, c) => selectiveScan(step, x, delta, a, b, c),
  reference: (...inputs) => selectiveScan64(inputs),
  shapes: [shapes(2, 37, 5, 16), shapes(1, 1, 1, 16), shapes(1, 150, 70, 16)],
  values,
  tolerance: 4e-6,
})

checkOp('selectiveScan with any number of states', {
  op: (step, x, delta, a, b, c) => selectiveScan(step, x, delta, a, b, c),
  reference: (...inputs) => selectiveScan64(inputs),
  shapes: [shapes(2, 67, 3, 1), shapes(1, 66, 5, 14), shapes(1, 65, 2, 64)],
  values,
  dtypes: ['f32'],
  tolerance: 4e-6,
})

checkOp('selectiveScan with D, bias and softplus', {
  op: (step, x, delta, a, b, c, skip, deltaBias) =>
    selectiveScan(step, x, delta, a, b, c, { skip, deltaBias, softplus: true }),
  reference: (...inputs) => selectiveScan64(inputs, { skip: inputs[5], bias: inputs[6], softplus: true }),
  shapes: [
    [...shapes(2, 130, 9, 16), [9], [9]],
    [...shapes(3, 64, 66, 16), [66], [66]],
  ],
  // Biases about -4, as Mamba begins: step sizes near 0.02.
  values: (random, shape, input) =>
    input === 1 || input === 6
      ? [...random.normals(shape.reduce((size, dimension) => size * dimension, 1))].map((v) => v - 2)
      : values(random, shape, input),
  tolerance: 4e-6,
})

function randomInputs(batch: number, tokens: number, channels: number, n: number): Array64[] {
  const random = new Random(11)
  return shapes(batch, tokens, channels, n).map((shape, i) => ({
    shape,
    data: Float64Array.from(Float32Array.from(values(random, shape, i))),
  }))
}

test('a sequence in two parts, then token by token, is the sequence in one', () =>
  withoutLeaks(async () => {
    const [batch, tokens, channels, n] = [2, 100, 6, 16]
    const inputs = randomInputs(batch, tokens, channels, n)
    const state = new Float64Array(batch * channels * n)
    const want = selectiveScan64(inputs, { state })
    using step = gpu.step()
    const carried = step.filled('f32', [batch, channels, n], 0)
    const part = (from: number, to: number) =>
      inputs.map(({ shape, data }, i) => {
        if (i === 2) return step.upload('f32', shape, data)
        const width = shape[2]
        const slices = Array.from({ length: batch }, (_, row) => [
          ...data.subarray((row * tokens + from) * width, (row * tokens + to) * width),
        ])
        return step.upload('f32', [batch, to - from, width], slices.flat())
      })
    for (const [from, to] of [
      [0, 70],
      [70, 97],
      [97, 98],
      [98, 99],
      [99, 100],
    ]) {
      const [x, delta, a, b, c] = part(from, to)
      const y =
        to - from === 1
          ? selectiveScanStep(step, x, delta, a, b, c, carried)
          : selectiveScan(step, x, delta, a, b, c, { state: carried })
      const got = await step.read(y)
      const wanted = Array.from({ length: batch }, (_, row) => [
        ...want.data.subarray((row * tokens + from) * channels, (row * tokens + to) * channels),
      ]).flat()
      expectClose(`tokens ${from} to ${to}`, got, wanted, 4e-6)
    }
    expectClose('state', await step.read(carried), state, 4e-6)
    await step.checkGuards()
  }))

test('a state that is given is a constant for the gradients', () =>
  withoutLeaks(async () => {
    const inputs = randomInputs(1, 80, 3, 16)
    const before = [...new Random(5).normals(48)]
    using step = gpu.step()
    const [x, delta, a, b, c] = inputs.map(({ shape, data }) => step.upload('f32', shape, data))
    a.requiresGrad = true
    const state = step.upload('f32', [1, 3, 16], before)
    const y = selectiveScan(step, x, delta, a, b, c, { state })
    const gradient = await step.read(step.backward(y, { seed: step.filled('f32', y.shape, 1) }).get(a))
    const rounded = Float32Array.from(before)
    const total = (rates: Float64Array) =>
      selectiveScan64([inputs[0], inputs[1], { ...inputs[2], data: rates }, inputs[3], inputs[4]], {
        state: Float64Array.from(rounded),
      }).data.reduce((sum, value) => sum + value, 0)
    const want = inputs[2].data.map((_, at, rates) => {
      const moved = (by: number) => rates.map((rate, i) => (i === at ? rate + by : rate))
      return (total(moved(1e-5)) - total(moved(-1e-5))) / 2e-5
    })
    expectClose('da', gradient, want, 2e-5)
  }))

test('a long sequence with strong decay stays finite, forward and backward', () =>
  withoutLeaks(async () => {
    const [tokens, channels, n] = [700, 4, 16]
    using step = gpu.step()
    const ones = (shape: readonly number[], value: number) => step.filled('f32', shape, value)
    const x = ones([1, tokens, channels], 1)
    x.requiresGrad = true
    const a = ones([channels, n], -40)
    a.requiresGrad = true
    const b = ones([1, tokens, n], 1)
    const y = selectiveScan(step, x, ones(x.shape, 5), a, b, b)
    // Nothing of h_{t-1} is left, so y = n · d · x.
    expectClose('y', await step.read(y), new Array(tokens * channels).fill(n * 5), 1e-6)
    const gradients = step.backward(y, { seed: ones(y.shape, 1) })
    expectClose('dx', await step.read(gradients.get(x)), new Array(tokens * channels).fill(n * 5), 1e-6)
    expectClose('da', await step.read(gradients.get(a)), new Array(channels * n).fill(0), 1e-6)
  }))

test('selectiveScan says what does not fit', () => {
  using step = gpu.step()
  const make = (...shape: number[]) => step.filled('f32', shape, 1)
  const x = make(2, 5, 6)
  expect(() => selectiveScan(step, x, make(2, 5, 7), make(6, 16), make(2, 5, 16), make(2, 5, 16))).toThrow(
    'Cannot selectiveScan x [2,5,6]: delta must be [2,5,6], got [2,5,7]',
  )
  expect(() => selectiveScan(step, x, x, make(6, 16), make(2, 5, 15), make(2, 5, 16))).toThrow(
    'b must be [2,5,16], got [2,5,15]',
  )
  expect(() => selectiveScan(step, x, x, make(6, 65), make(2, 5, 65), make(2, 5, 65))).toThrow(
    'a must have 1 to 64 states, got 65',
  )
  expect(() => selectiveScanStep(step, x, x, make(6, 16), make(2, 5, 16), make(2, 5, 16), make(2, 6, 16))).toThrow(
    'it must have one token; use selectiveScan for more',
  )
})
