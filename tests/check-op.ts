import { describe, expect, test } from 'vitest'
import { decode, encode, type FloatType } from '../src/core/dtype.ts'
import { Random } from '../src/core/random.ts'
import { type Shape, showShape, sizeOf } from '../src/core/shape.ts'
import type { Step } from '../src/runtime/step.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import { gpu, withoutLeaks } from './gpu.ts'
import type { Array64 } from './reference/array64.ts'

/** What to check of an op. */
export interface OpCheck {
  /** Records the op on tensors of `shapes`. */
  readonly op: (step: Step, ...inputs: Tensor<FloatType>[]) => Tensor<FloatType>
  /** The same in plain f64 loops, as close to the formula as it goes. */
  readonly reference: (...inputs: Array64[]) => Array64
  /** Input shapes, a list a case; odd ones and more than one workgroup among them. */
  readonly shapes: readonly (readonly Shape[])[]
  /** Storage types; f32 and f16 unless told. */
  readonly dtypes?: readonly FloatType[]
  /** Largest error over the largest magnitude; 2e-6 in f32 and 2e-3 in f16 unless told. */
  readonly tolerance?: number
  /** Makes the values of one input; standard normal unless told. */
  readonly values?: (random: Random, shape: Shape, input: number) => ArrayLike<number>
  /** Inputs whose gradient is checked; all unless told, none for an op without a gradient. */
  readonly gradients?: readonly number[]
}

/**
 * Checks an op: forward against the f64 oracle; gradients against central differences of the oracle; nothing written
 * behind any tensor's end; the same bits twice; no memory left behind.
 */
export function checkOp(name: string, check: OpCheck): void {
  const dtypes = (check.dtypes ?? ['f32', 'f16']).filter((dtype) => dtype === 'f32' || gpu.capabilities.f16)
  describe(name, () => {
    for (const dtype of dtypes)
      for (const shapes of check.shapes)
        test(`${dtype} ${shapes.map(showShape).join(' ')}`, () => withoutLeaks(() => checkCase(check, dtype, shapes)))
  })
}

async function checkCase(check: OpCheck, dtype: FloatType, shapes: readonly Shape[]): Promise<void> {
  const random = new Random(42)
  const tolerance = check.tolerance ?? 2e-6
  const bound = dtype === 'f32' ? tolerance : Math.max(2e-3, tolerance)
  const inputs = shapes.map((shape, i): Array64 => {
    const values = check.values?.(random, shape, i) ?? random.normals(sizeOf(shape))
    return { shape, data: rounded(dtype, values) }
  })
  const want = check.reference(...inputs)
  const seed: Array64 = { shape: want.shape, data: rounded(dtype, random.normals(want.data.length)) }
  const wanted = check.gradients ?? inputs.map((_, i) => i)

  const first = await runOnGpu(check, dtype, inputs, seed, wanted)
  expect(first.shape).toEqual(want.shape)
  expectClose('output', first.output, want.data, bound)
  for (const [k, i] of wanted.entries()) {
    const { indices, values } = differences(check.reference, inputs, seed, i)
    // The oracle's gradient is sampled; its scale is taken from the whole gradient, as for the output.
    const scale = maxAbs(first.gradients[k])
    expectClose(
      `gradient of input ${i}`,
      Float64Array.from(indices, (at) => first.gradients[k][at]),
      values,
      bound * 4,
      scale,
    )
  }
  const second = await runOnGpu(check, dtype, inputs, seed, wanted)
  expect(second.output, 'the same bits twice').toEqual(first.output)
  expect(second.gradients, 'the same gradients twice').toEqual(first.gradients)
}

/** What the GPU will see of `values`, as f64. */
function rounded(dtype: FloatType, values: ArrayLike<number>): Float64Array {
  return Float64Array.from(decode(dtype, encode(dtype, values)))
}

async function runOnGpu(
  check: OpCheck,
  dtype: FloatType,
  inputs: readonly Array64[],
  seed: Array64,
  wanted: readonly number[],
) {
  using step = gpu.step()
  const tensors = inputs.map(({ shape, data }, i) => step.upload(dtype, shape, data, `input${i}`))
  for (const i of wanted) tensors[i].requiresGrad = true
  const y = check.op(step, ...tensors)
  const dy = step.upload(y.dtype, y.shape, seed.data, 'seed')
  const gradients = wanted.length > 0 ? step.backward(y, { seed: dy }) : undefined
  const result = {
    shape: y.shape,
    output: await step.read(y),
    gradients: await Promise.all(wanted.map((i) => step.read(gradients!.get(tensors[i])))),
  }
  await step.checkGuards()
  return result
}

const mostElements = 48

/** dL/dx for L = sum(seed · reference(inputs)), by central differences at up to 48 elements of input `which`. */
function differences(reference: OpCheck['reference'], inputs: readonly Array64[], seed: Array64, which: number) {
  const { shape, data } = inputs[which]
  const random = new Random(7)
  const indices =
    data.length <= mostElements
      ? [...data.keys()]
      : Array.from({ length: mostElements }, () => random.integer(data.length))
  const loss = (values: Float64Array) => {
    const output = reference(...inputs.map((input, i) => (i === which ? { shape, data: values } : input))).data
    return output.reduce((sum, value, i) => sum + value * seed.data[i], 0)
  }
  const values = indices.map((at) => {
    const h = 1e-5 * Math.max(1, Math.abs(data[at]))
    const moved = Float64Array.from(data)
    moved[at] = data[at] + h
    const above = loss(moved)
    moved[at] = data[at] - h
    return (above - loss(moved)) / (2 * h)
  })
  return { indices, values: Float64Array.from(values) }
}

/** Fails unless every element lies within `bound` of `want`, relative to the largest magnitude. */
export function expectClose(
  what: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  bound: number,
  scale = 0,
): void {
  expect(got.length, `size of ${what}`).toBe(want.length)
  const largest = Math.max(maxAbs(want), scale, 1e-2)
  for (let i = 0; i < got.length; i++) {
    const error = Math.abs(got[i] - want[i]) / largest
    if (!(error <= bound))
      throw new Error(
        `${what}[${i}] is ${got[i]}, want ${want[i]}: error ${error.toExponential(2)} of the largest, allowed ${bound}`,
      )
  }
}

function maxAbs(values: ArrayLike<number>): number {
  let most = 0
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]))
  return most
}
