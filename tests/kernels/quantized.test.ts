import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { dequantizeInt8, quantizeInt8 } from '../../src/formats/int8.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { dequantizeInt8 as dequantizeInt8OnGpu, int8Linear, uploadInt8 } from '../../src/kernels/int8.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { dequantizeNf4 as dequantizeNf4OnGpu, nf4Linear, uploadNf4 } from '../../src/kernels/nf4.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { layer } from '../reference/products.ts'

/** How each format is made of values, read back on the host and on the GPU, and multiplied with. */
const formats = {
  nf4: (values: Float32Array, shape: [number, number]) => {
    const packed = quantizeNf4(values, shape)
    return {
      dense: dequantizeNf4(packed),
      linear: (step: Step, x: Tensor<'f32'>) => nf4Linear(step, x, uploadNf4(step, packed)),
      decoded: (step: Step) => dequantizeNf4OnGpu(step, uploadNf4(step, packed), 'f32'),
    }
  },
  'nf4 nested': (values: Float32Array, shape: [number, number]) => {
    const packed = quantizeNf4(values, shape, { doubleQuant: true })
    return {
      dense: dequantizeNf4(packed),
      linear: (step: Step, x: Tensor<'f32'>) => nf4Linear(step, x, uploadNf4(step, packed)),
      decoded: (step: Step) => dequantizeNf4OnGpu(step, uploadNf4(step, packed), 'f32'),
    }
  },
  int8: (values: Float32Array, shape: [number, number]) => {
    const packed = quantizeInt8(values, shape)
    return {
      dense: dequantizeInt8(packed),
      linear: (step: Step, x: Tensor<'f32'>) => int8Linear(step, x, uploadInt8(step, packed)),
      decoded: (step: Step) => dequantizeInt8OnGpu(step, uploadInt8(step, packed), 'f32'),
    }
  },
}

for (const [name, make] of Object.entries(formats)) {
  // Part of a block; blocks that end inside a row; N that is no multiple of four, and one that is, for the lanes; more than one workgroup each way.
  for (const [n, k] of [
    [1, 8],
    [9, 24],
    [13, 64],
    [66, 72],
    [68, 136],
  ] as const) {
    const packed = make(new Random(n).normals(n * k), [n, k])
    checkOp(`${name} linear (${n}, ${k})`, {
      op: (step, x) => packed.linear(step, x as Tensor<'f32'>),
      reference: (x) => layer(x, { shape: [n, k], data: Float64Array.from(packed.dense) }),
      // Up to four rows take the GEMV, more the tiles.
      shapes: [[[1, k]], [[3, k]], [[2, 3, k]], ...(n > 64 ? [[[37, k]]] : [])],
    })

    test(`${name} (${n}, ${k}) is decoded as on the host`, () =>
      withoutLeaks(async () => {
        using step = gpu.step()
        const got = await step.read(packed.decoded(step))
        if (name === 'nf4 nested') expectClose('weight', got, packed.dense, 1e-7)
        else expect(got).toEqual(packed.dense)
        await step.checkGuards()
      }))
  }

  test(`${name}: scales of 256 blocks and more, and K split over a whole workgroup`, () =>
    withoutLeaks(async () => {
      const [n, k] = [9, 4096]
      const random = new Random(11)
      const packed = make(random.normals(n * k), [n, k])
      for (const m of [1, 2, 4, 6]) {
        using step = gpu.step()
        const data = random.normals(m * k)
        const y = await step.read(packed.linear(step, step.upload('f32', [m, k], data)))
        const x = { shape: [m, k], data: Float64Array.from(data) }
        expectClose(`${m} rows`, y, layer(x, { shape: [n, k], data: Float64Array.from(packed.dense) }).data, 2e-6)
        await step.checkGuards()
      }
    }))
}

checkOp('linear with one to four rows', {
  op: (step, x, weight) => linear(step, x, weight),
  reference: layer,
  shapes: [
    [
      [1, 4],
      [1, 4],
    ],
    [
      [2, 36],
      [37, 36],
    ],
    [
      [1, 3, 136],
      [66, 136],
    ],
    [
      [4, 2052],
      [5, 2052],
    ],
  ],
})

test('quantised weights say what does not fit', () => {
  using step = gpu.step()
  const nf4 = uploadNf4(step, quantizeNf4(new Random(1).normals(128), [8, 16]))
  const int8 = uploadInt8(step, quantizeInt8(new Random(1).normals(128), [8, 16]))
  const x = step.filled('f32', [2, 24], 1)
  expect(() => nf4Linear(step, x, nf4)).toThrow('Cannot nf4Linear x [2,24]: weight is [8,16], so x must be (…, 16)')
  expect(() => int8Linear(step, x, int8)).toThrow('Cannot int8Linear x [2,24]: weight is [8,16], so x must be (…, 16)')
  expect(() => int8Linear(step, x, { ...int8, shape: [8, 24] })).toThrow('it needs 48 words and 8 magnitudes')
  expect(() => nf4Linear(step, x, { ...nf4, shape: [16, 24] })).toThrow('it needs 48 words, got 16')
  expect(() => nf4Linear(step, x, { ...nf4, shape: [32, 4] })).toThrow('K a multiple of 8')
})
