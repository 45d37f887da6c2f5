import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { causalConv1d } from '../../src/kernels/causal-conv1d.ts'
import { mul, scale } from '../../src/kernels/elementwise.ts'
import { sum } from '../../src/kernels/reduce.ts'
import { selectiveScan } from '../../src/kernels/selective-scan.ts'
import { ssd } from '../../src/kernels/ssd.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const file = join(import.meta.dirname, '../oracles/golden/state-space.safetensors')
const { tensors } = parseSafetensors(new Uint8Array(readFileSync(file)))

type Inputs = Readonly<Record<string, Tensor<'f32'>>>
const cases: Readonly<Record<string, (step: Step, inputs: Inputs) => Tensor<'f32'>>> = {
  causalConv1d: (step, { x, weight, bias }) => causalConv1d(step, x, weight, { bias, activation: 'silu' }),
  selectiveScan: (step, { x, delta, a, b, c, skip, delta_bias }) =>
    selectiveScan(step, x, delta, a, b, c, { skip, deltaBias: delta_bias, softplus: true }),
  ssd: (step, { x, dt, a, b, c, skip, dt_bias }) =>
    ssd(step, x, dt, a, b, c, { skip, dtBias: dt_bias, softplus: true }),
}

test.each(Object.keys(cases))('%s: loss, output and gradients agree with PyTorch autograd in f64', (name) =>
  withoutLeaks(async () => {
    const golden = (key: string) => toFloat32(tensors.get(`${name}/${key}`)!)
    using step = gpu.step()
    const upload = (key: string) => step.upload('f32', tensors.get(`${name}/${key}`)!.shape, golden(key))
    const prefix = `${name}/input/`
    const names = [...tensors.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length))
    const inputs = Object.fromEntries(names.map((key) => [key, upload(`input/${key}`)]))
    expect(names.length).toBeGreaterThan(2)
    for (const input of Object.values(inputs)) input.requiresGrad = true
    const y = cases[name](step, inputs)
    const loss = scale(step, sum(step, mul(step, y, upload('seed'))), 1 / y.size)
    const gradients = step.backward(loss)
    expectClose('output', await step.read(y), golden('output'), 1e-5)
    // The loss is a mean of terms of both signs: its error is measured against the size of a term.
    expect(Math.abs((await step.readNumber(loss)) - golden('loss')[0])).toBeLessThan(1e-5)
    for (const key of names) {
      const got = await step.read(gradients.get(inputs[key]))
      const want = golden(`gradient/${key}`)
      // expectClose takes magnitudes below 0.01 for 0.01; these gradients are of a mean, so compare them as of a sum.
      const grown = (values: ArrayLike<number>) => Float64Array.from(values, (value) => value * y.size)
      expectClose(key, grown(got), grown(want), 1e-5)
    }
    await step.checkGuards()
  }),
)
