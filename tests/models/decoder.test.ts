import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseModelConfig } from '../../src/formats/model-config.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import '../../src/kernels/add.ts'
import { Random } from '../../src/core/random.ts'
import { crossEntropy } from '../../src/kernels/losses.ts'
import { mean } from '../../src/kernels/reduce.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const golden = join(import.meta.dirname, '../oracles/golden')

test.each(['decoder-tied', 'decoder-untied'])('%s: loss, logits and gradients agree with PyTorch autograd', (name) =>
  withoutLeaks(async () => {
    const { tensors, metadata } = parseSafetensors(new Uint8Array(readFileSync(join(golden, `${name}.safetensors`))))
    const config = parseModelConfig(JSON.parse(metadata.config))
    const part = (prefix: string) =>
      new Map(
        [...tensors].flatMap(([key, t]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), t] as const] : [])),
      )
    const integers = (key: string) => new Int32Array(tensors.get(key)!.data.slice().buffer)
    using model = Decoder.load(gpu, config, part('weight/'))
    for (const parameter of model.parameters.values()) parameter.requiresGrad = true
    using step = gpu.step()
    const shape = [3, 11]
    const logits = model.forward(step, step.upload('u32', shape, integers('ids')))
    const weights = toFloat32(tensors.get('weights')!)
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    const losses = crossEntropy(step, logits, step.upload('u32', shape, integers('targets')))
    const loss = weightedMean(step, losses, step.upload('f32', shape, weights), total)
    const gradients = step.backward(loss)

    expectClose('logits', await step.read(logits), toFloat32(tensors.get('logits')!), 1e-5)
    expectClose('loss', await step.read(loss), toFloat32(tensors.get('loss')!), 1e-6)
    const wanted = part('gradient/')
    expect([...wanted.keys()].sort()).toEqual([...model.parameters.keys()].sort())
    for (const [key, gradient] of wanted)
      expectClose(key, await step.read(gradients.get(model.parameters.get(key)!)), toFloat32(gradient), 1e-4)
    await step.checkGuards()
  }),
)

const config = {
  ...{ vocabularySize: 32, width: 32, layers: 2, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 64 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 32, tiedHead: true, eosId: 0 },
}

test('a decoder in NF4 computes what its dequantised weights would', () =>
  withoutLeaks(async () => {
    const { randomTensors } = await import('../../src/models/random-tensors.ts')
    const { dequantizeNf4, quantizeNf4 } = await import('../../src/formats/nf4.ts')
    const { cpuTensor } = await import('../../src/formats/tensor.ts')
    const tensors = randomTensors(config, new Random(3), 0.2)
    const rounded = new Map(
      [...tensors].map(([name, tensor]) => {
        if (!name.endsWith('_proj.weight')) return [name, tensor] as const
        return [
          name,
          cpuTensor('F32', tensor.shape, dequantizeNf4(quantizeNf4(toFloat32(tensor), tensor.shape))),
        ] as const
      }),
    )
    using packed = Decoder.load(gpu, config, tensors, 'nf4')
    using plain = Decoder.load(gpu, config, rounded)
    expect(packed.parameterCount).toBe(plain.parameterCount)
    using step = gpu.step()
    const ids = step.upload(
      'u32',
      [2, 9],
      Array.from({ length: 18 }, (_, i) => (i * 5) % 32),
    )
    expectClose('logits', await step.read(packed.forward(step, ids)), await step.read(plain.forward(step, ids)), 1e-5)
  }))

test('f16 weights and activations stay close to f32', () =>
  withoutLeaks(async () => {
    if (!gpu.capabilities.f16) return
    const { randomTensors } = await import('../../src/models/random-tensors.ts')
    const tensors = randomTensors(config, new Random(4), 0.2)
    using half = Decoder.load(gpu, config, tensors, 'f16')
    using full = Decoder.load(gpu, config, tensors)
    using step = gpu.step()
    const ids = step.upload(
      'u32',
      [2, 9],
      Array.from({ length: 18 }, (_, i) => (i * 7) % 32),
    )
    expectClose('logits', await step.read(half.forward(step, ids)), await step.read(full.forward(step, ids)), 1e-2)
  }))

test('activations are named in the order of the network, and layers can be left out', () => {
  using model = Decoder.random(gpu, config, new Random(1))
  using step = gpu.step()
  const names: string[] = []
  const ids = step.upload('u32', [1, 3], [1, 2, 3])
  model.forward(step, ids, { observe: (name) => names.push(name), skip: new Set([0]) })
  expect(names).toEqual([
    'embedding',
    ...['attention.input', 'query', 'attention.mixed', 'ffn.input', 'ffn.hidden', 'output'].map((n) => `1.${n}`),
  ])
})

test('a sequence longer than the context is refused', () => {
  using model = Decoder.random(gpu, config, new Random(1))
  using step = gpu.step()
  expect(() => model.forward(step, step.filled('u32', [1, 33], 1))).toThrow('T at most 32')
})

test('checkpointed layers give the same gradients with less memory', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, { ...config, layers: 6 }, new Random(1), 0.2)
    const run = async (checkpoint: boolean) => {
      using step = gpu.step()
      for (const parameter of model.parameters.values()) parameter.requiresGrad = true
      const ids = step.upload(
        'u32',
        [2, 16],
        Array.from({ length: 32 }, (_, i) => (i * 5) % 32),
      )
      const most = gpu.watchPeak()
      const gradients = step.backward(mean(step, crossEntropy(step, model.forward(step, ids, { checkpoint }), ids)))
      const values = await Promise.all([...model.parameters.values()].map((tensor) => step.read(gradients.get(tensor))))
      for (const parameter of model.parameters.values()) parameter.requiresGrad = false
      return { values, most: most() }
    }
    const [plain, wrapped] = [await run(false), await run(true)]
    for (const [i, values] of wrapped.values.entries()) expectClose(`gradient ${i}`, values, plain.values[i], 1e-5)
    expect(wrapped.most).toBeLessThan(0.7 * plain.most)
  }))
