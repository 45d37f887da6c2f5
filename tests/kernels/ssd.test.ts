import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { ssd } from '../../src/kernels/ssd.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import type { Array64 } from '../reference/array64.ts'
import { ssd64 } from '../reference/state-space.ts'

function values(random: Random, shape: readonly number[], input: number): number[] {
  const normals = [...random.normals(shape.reduce((size, dimension) => size * dimension, 1))]
  if (input === 1) return normals.map((value) => 0.01 + 0.3 * Math.abs(value))
  if (input === 2) return normals.map((value) => -Math.exp(0.8 * value) - 0.05)
  return normals
}

const shapes = (batch: number, tokens: number, [heads, groups]: [number, number], width: number, n: number) => [
  [batch, tokens, heads, width],
  [batch, tokens, heads],
  [heads],
  [batch, tokens, groups, n],
  [batch, tokens, groups, n],
]

checkOp('ssd', {
  op: (step, x, dt, a, b, c) => ssd(step, x, dt, a, b, c),
  reference: (...inputs) => ssd64(inputs),
  shapes: [shapes(2, 37, [4, 2], 8, 12), shapes(1, 1, [1, 1], 1, 1), shapes(1, 150, [6, 2], 4, 16)],
  values,
  tolerance: 5e-6,
})

checkOp('ssd with D, bias and softplus', {
  op: (step, x, dt, a, b, c, skip, dtBias) => ssd(step, x, dt, a, b, c, { skip, dtBias, softplus: true }),
  reference: (...inputs) => ssd64(inputs, { skip: inputs[5], bias: inputs[6], softplus: true }),
  shapes: [[...shapes(2, 131, [3, 1], 5, 7), [3], [3]]],
  values: (random, shape, input) =>
    input === 1 || input === 6
      ? [...random.normals(shape.reduce((size, dimension) => size * dimension, 1))].map((v) => v - 2)
      : values(random, shape, input),
  tolerance: 5e-6,
})

test('a sequence in parts with a carried state is the sequence in one', () =>
  withoutLeaks(async () => {
    const [batch, tokens, heads, width, n] = [2, 100, 2, 4, 8]
    const random = new Random(11)
    const inputs = shapes(batch, tokens, [heads, 1], width, n).map((shape, i) => ({
      shape,
      data: Float64Array.from(Float32Array.from(values(random, shape, i))),
    }))
    const state = new Float64Array(batch * heads * width * n)
    const want = ssd64(inputs, { state })
    using step = gpu.step()
    const carried = step.filled('f32', [batch, heads, width, n], 0)
    const cut = ({ shape, data }: Array64, from: number, to: number) => {
      const cells = data.length / batch / tokens
      const rows = Array.from({ length: batch }, (_, row) => [
        ...data.subarray((row * tokens + from) * cells, (row * tokens + to) * cells),
      ])
      return { shape: [batch, to - from, ...shape.slice(2)], data: Float64Array.from(rows.flat()) }
    }
    for (const [from, to] of [
      [0, 70],
      [70, 99],
      [99, 100],
    ]) {
      const [x, dt, a, b, c] = inputs.map((input, i) => {
        const { shape, data } = i === 2 ? input : cut(input, from, to)
        return step.upload('f32', shape, data)
      })
      const y = ssd(step, x, dt, a, b, c, { state: carried })
      expectClose(`tokens ${from} to ${to}`, await step.read(y), cut(want, from, to).data, 5e-6)
    }
    expectClose('state', await step.read(carried), state, 5e-6)
    await step.checkGuards()
  }))

test('steep decay stays finite, forward and backward', () =>
  withoutLeaks(async () => {
    const [tokens, heads, width, n] = [200, 2, 4, 8]
    using step = gpu.step()
    const filled = (shape: readonly number[], value: number) => step.filled('f32', shape, value)
    const x = filled([1, tokens, heads, width], 1)
    const dt = filled([1, tokens, heads], 5)
    const a = filled([heads], -40)
    for (const tensor of [x, dt, a]) tensor.requiresGrad = true
    const b = filled([1, tokens, 1, n], 1)
    const y = ssd(step, x, dt, a, b, b)
    // A step decays by exp(-200): nothing of the state before is left, so y = n · d · x.
    expectClose('y', await step.read(y), new Array(x.size).fill(n * 5), 1e-6)
    const gradients = step.backward(y, { seed: filled(y.shape, 1) })
    expectClose('dx', await step.read(gradients.get(x)), new Array(x.size).fill(n * 5), 1e-6)
    expectClose('ddt', await step.read(gradients.get(dt)), new Array(dt.size).fill(n * width), 1e-6)
    expectClose('da', await step.read(gradients.get(a)), new Array(heads).fill(0), 1e-6)
  }))

test('ssd says what does not fit', () => {
  using step = gpu.step()
  const make = (...shape: number[]) => step.filled('f32', shape, 1)
  const x = make(2, 5, 6, 4)
  const dt = make(2, 5, 6)
  expect(() => ssd(step, x, make(2, 5, 7), make(6), make(2, 5, 2, 8), make(2, 5, 2, 8))).toThrow(
    'Cannot ssd x [2,5,6,4]: dt must be [2,5,6], got [2,5,7]',
  )
  expect(() => ssd(step, x, dt, make(6), make(2, 5, 4, 8), make(2, 5, 4, 8))).toThrow(
    '6 heads cannot share 4 groups of b and c',
  )
})
