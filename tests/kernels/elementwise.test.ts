import { expect, test } from 'vitest'
import { add } from '../../src/kernels/add.ts'
import { addBias } from '../../src/kernels/bias.ts'
import { joinColumns } from '../../src/kernels/columns.ts'
import { cast } from '../../src/kernels/copy.ts'
import { gelu, log1p, mul, scale, silu, sub, swiglu } from '../../src/kernels/elementwise.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { checkOp } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { type Array64, mapped, zeros } from '../reference/array64.ts'
import { gelu64, silu64 } from '../reference/rows.ts'

const shapes = [[5, 37], [1, 1], [70_000]]
const one = shapes.map((shape) => [shape])
const two = shapes.map((shape) => [shape, shape])

const map =
  (f: (...values: number[]) => number) =>
  (...inputs: Array64[]) =>
    mapped(f, ...inputs)

checkOp('add', { op: add, reference: map((a, b) => a + b), shapes: two })
checkOp('sub', { op: sub, reference: map((a, b) => a - b), shapes: two })
checkOp('mul', { op: mul, reference: map((a, b) => a * b), shapes: two })
checkOp('scale', { op: (step, x) => scale(step, x, -1.5), reference: map((a) => -1.5 * a), shapes: one })
checkOp('silu', { op: silu, reference: map((a) => silu64(a)), shapes: one })
checkOp('gelu', { op: gelu, reference: map((a) => gelu64(a)), shapes: one })
checkOp('log1p of a square', {
  op: (step, x) => log1p(step, mul(step, x, x)),
  reference: map((a) => Math.log1p(a * a)),
  shapes: one,
})
checkOp('swiglu', { op: swiglu, reference: map((a, b) => silu64(a) * b), shapes: two })

test('activations stay finite far from zero', async () => {
  using step = gpu.step()
  const x = step.upload('f32', [4], [-1e4, -100, 100, 1e4])
  expect([...(await step.read(silu(step, x)))]).toEqual([-0, -0, 100, 1e4])
  expect([...(await step.read(gelu(step, x)))]).toEqual([-0, -0, 100, 1e4])
})

test('a gradient that a fused kernel made refuses a second differentiation', () => {
  using step = gpu.step()
  const x = step.filled('f32', [2, 4], 0.5)
  const weight = step.filled('f32', [4], 1)
  x.requiresGrad = true
  const y = mul(step, rmsNorm(step, x, weight), x)
  const first = step.backward(y, { seed: step.filled('f32', [2, 4], 1), createGraph: true }).get(x)
  expect(() => step.backward(first, { seed: x })).toThrow('Cannot differentiate rmsNorm backward: it has no gradient')
})

checkOp('cast', {
  op: (step, x) => cast(step, cast(step, x, 'f32'), x.dtype),
  reference: (x) => x,
  shapes: [[[5, 37]], [[1, 1]], [[300]]],
})

test.runIf(gpu.capabilities.f16)('cast rounds to nearest', async () => {
  using step = gpu.step()
  const x = step.upload('f32', [3], [1 / 3, 65504, -1e-7])
  expect([...(await step.read(cast(step, x, 'f16')))]).toEqual([0.333251953125, 65504, -1.1920928955078125e-7])
})

checkOp('addBias', {
  op: addBias,
  reference: (x, bias) => ({ shape: x.shape, data: x.data.map((value, i) => value + bias.data[i % bias.data.length]) }),
  shapes: [
    [[5, 37], [37]],
    [[1, 1], [1]],
    [[2, 70, 66], [66]],
  ],
})

checkOp('joinColumns', {
  op: (step, ...parts) => joinColumns(step, parts),
  reference: (...parts) => {
    const widths = parts.map(({ shape }) => shape.at(-1)!)
    const columns = widths.reduce((sum, width) => sum + width)
    const y = zeros(...parts[0].shape.slice(0, -1), columns)
    for (let i = 0; i < y.data.length; i++) {
      let [row, c, part] = [Math.floor(i / columns), i % columns, 0]
      while (c >= widths[part]) c -= widths[part++]
      y.data[i] = parts[part].data[row * widths[part] + c]
    }
    return y
  },
  shapes: [
    [
      [5, 3],
      [5, 37],
      [5, 1],
    ],
    [[1, 1]],
    [
      [2, 40, 7],
      [2, 40, 9],
    ],
  ],
})
