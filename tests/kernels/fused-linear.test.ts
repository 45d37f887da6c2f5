import { expect, test } from 'vitest'
import type { FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { quantizeInt8 } from '../../src/formats/int8.ts'
import { quantizeNf4 } from '../../src/formats/nf4.ts'
import { add } from '../../src/kernels/add.ts'
import { gelu, mul, swiglu } from '../../src/kernels/elementwise.ts'
import { fusedLinear, gatedLinear } from '../../src/kernels/fused-linear.ts'
import { uploadInt8 } from '../../src/kernels/int8.ts'
import { anyLinear, type LinearWeight } from '../../src/kernels/lora.ts'
import { uploadNf4 } from '../../src/kernels/nf4.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

type Make = (step: Step, dtype: FloatType, values: Float32Array, n: number, k: number) => LinearWeight
const kinds: Record<string, Make> = {
  dense: (step, dtype, values, n, k) => step.upload(dtype, [n, k], values),
  'dense in f16': (step, _, values, n, k) => step.upload('f16', [n, k], values),
  nf4: (step, _, values, n, k) => uploadNf4(step, quantizeNf4(values, [n, k])),
  'nf4 nested': (step, _, values, n, k) => uploadNf4(step, quantizeNf4(values, [n, k], { doubleQuant: true })),
  int8: (step, _, values, n, k) => uploadInt8(step, quantizeInt8(values, [n, k])),
}
const dtypes = (['f32', 'f16'] as const).filter((dtype) => dtype === 'f32' || gpu.capabilities.f16)
const bound = { f32: 3e-6, f16: 3e-3 }
// One to four rows take the kernel, five the ops; 72 is no multiple of 32; 288 ends within a subgroup's turn.
const sizes = [
  { m: 1, n: 68, k: 288 },
  { m: 3, n: 9, k: 64 },
  { m: 4, n: 33, k: 1056 },
  { m: 2, n: 12, k: 72 },
  { m: 5, n: 12, k: 64 },
]

interface Inputs {
  readonly x: Tensor<FloatType>
  readonly gain: Tensor<FloatType>
  readonly base: Tensor<FloatType>
  readonly weights: readonly [LinearWeight, LinearWeight]
}

/** An op and the plain ops that it replaces. */
const ops: Record<string, { fused: Op; plain: Op }> = {
  'add(base, linear(rmsNorm(x)))': {
    fused: (step, { x, gain, base, weights }) => fusedLinear(step, x, weights[0], { norm: { gain, eps: 1e-5 }, base }),
    plain: (step, { x, gain, base, weights }) =>
      add(step, base, anyLinear(step, rmsNorm(step, x, gain, { eps: 1e-5 }), weights[0])),
  },
  'add(base, linear(x))': {
    fused: (step, { x, base, weights }) => fusedLinear(step, x, weights[0], { base }),
    plain: (step, { x, base, weights }) => add(step, base, anyLinear(step, x, weights[0])),
  },
  'swiglu(linear(rmsNorm(x)), linear(rmsNorm(x)))': {
    fused: (step, { x, gain, weights }) =>
      gatedLinear(step, x, ...weights, { activation: 'silu', norm: { gain, eps: 1e-5 } }),
    plain(step, { x, gain, weights }) {
      const input = rmsNorm(step, x, gain, { eps: 1e-5 })
      return swiglu(step, anyLinear(step, input, weights[0]), anyLinear(step, input, weights[1]))
    },
  },
  'mul(gelu(linear(x)), linear(x))': {
    fused: (step, { x, weights }) => gatedLinear(step, x, ...weights, { activation: 'gelu' }),
    plain: (step, { x, weights }) =>
      mul(step, gelu(step, anyLinear(step, x, weights[0])), anyLinear(step, x, weights[1])),
  },
}
type Op = (step: Step, inputs: Inputs) => Tensor<FloatType>

function inputsOf(step: Step, dtype: FloatType, make: Make, { m, n, k }: (typeof sizes)[number]): Inputs {
  const random = new Random(m)
  return {
    x: step.upload(dtype, [m, k], random.normals(m * k, 2)),
    gain: step.upload(dtype, [k], random.normals(k)),
    base: step.upload(dtype, [m, n], random.normals(m * n)),
    weights: [make(step, dtype, random.normals(n * k, 0.2), n, k), make(step, dtype, random.normals(n * k, 0.2), n, k)],
  }
}

for (const dtype of dtypes)
  for (const [kind, make] of Object.entries(kinds))
    for (const [name, { fused, plain }] of Object.entries(ops)) {
      test(`${dtype} over ${kind}: ${name}`, () =>
        withoutLeaks(async () => {
          for (const size of dtype === 'f32' && kind !== 'nf4 nested' ? sizes : sizes.slice(0, 1)) {
            using step = gpu.step()
            const inputs = inputsOf(step, dtype, make, size)
            const before = step.cost.dispatches
            const y = fused(step, inputs)
            const few = step.cost.dispatches - before
            const want = plain(step, inputs)
            const many = step.cost.dispatches - before - few
            if (size.m <= 4 && kind === 'dense') expect(few).toBe(1)
            if (size.m > 4) expect(few).toBe(many)
            expect(y.shape).toEqual(want.shape)
            expectClose(`${size.m} × ${size.k}`, await step.read(y), await step.read(want), bound[dtype])
            await step.checkGuards()
          }
        }))

      test(`${dtype} over ${kind}: gradients of ${name}`, () =>
        withoutLeaks(async () => {
          const size = sizes[1]
          const slopes = async (op: Op) => {
            using step = gpu.step()
            const inputs = inputsOf(step, dtype, make, size)
            const wanted = [inputs.x, ...(name.includes('rmsNorm') ? [inputs.gain] : [])]
            for (const input of wanted) input.requiresGrad = true
            const y = op(step, inputs)
            const seed = step.upload(dtype, y.shape, new Random(3).normals(y.size))
            const gradients = step.backward(y, { seed })
            return Promise.all(wanted.map((input) => step.read(gradients.get(input))))
          }
          expect(await slopes(fused)).toEqual(await slopes(plain))
        }))
    }

test('fused products say what does not fit', () => {
  using step = gpu.step()
  const [x, weight] = [step.filled('f32', [2, 8], 1), step.filled('f32', [3, 8], 1)]
  expect(() => fusedLinear(step, x, weight, { base: step.filled('f32', [2, 4], 1) })).toThrow(
    'Cannot fusedLinear x [2,8]: base must be [2,3], got',
  )
  expect(() => gatedLinear(step, x, weight, step.filled('f32', [4, 8], 1), { activation: 'silu' })).toThrow(
    'Cannot gatedLinear x [2,8]: up must be [3,8], got [4,8]',
  )
})
