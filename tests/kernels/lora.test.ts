import { expect, test } from 'vitest'
import type { FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { dequantizeInt8, quantizeInt8 } from '../../src/formats/int8.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { uploadInt8 } from '../../src/kernels/int8.ts'
import { anyLinear, type LinearWeight, lora, loraLinear, plainLora } from '../../src/kernels/lora.ts'
import { type HostLoraPair, loraBatch, noAdapter, uploadLoraStack } from '../../src/kernels/lora-batch.ts'
import { uploadNf4 } from '../../src/kernels/nf4.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { layer, withUpdate, withUpdates } from '../reference/products.ts'

const loraShapes = (m: number[], n: number, k: number, rank: number) => [
  [...m, n],
  [...m, k],
  [rank, k],
  [n, rank],
]
const fused = [
  loraShapes([1], 4, 4, 4),
  loraShapes([5], 12, 8, 4),
  loraShapes([3, 67], 36, 20, 8), // more than one slice of rows and a ragged last block
  loraShapes([2], 20, 520, 12), // more than one slice of K
]
for (const [name, op] of Object.entries({ lora, plainLora }))
  checkOp(name, {
    op: (step, base, x, a, b) => op(step, base, x, { a, b, scale: 0.5 }),
    reference: (base, x, a, b) => withUpdate(base, x, a, b, 0.5),
    // The last one is of no multiples of four.
    shapes: [...(name === 'lora' ? fused : fused.slice(1, 2)), loraShapes([2, 5], 7, 3, 2)],
    tolerance: 4e-6,
  })

test('lora stays what its plain ops make, forward and in every gradient', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const random = new Random(8)
    const inputs = loraShapes([9], 16, 24, 4).map((shape) =>
      step.upload('f32', shape, random.normals(shape[0] * shape[1])),
    )
    for (const input of inputs) input.requiresGrad = true
    const [base, x, a, b] = inputs
    const seed = step.upload('f32', [9, 16], random.normals(144))
    const [got, want] = [lora, plainLora].map((op) => op(step, base, x, { a, b, scale: 0.7 }))
    expectClose('y', await step.read(got), await step.read(want), 2e-6)
    const [dgot, dwant] = [got, want].map((y) => step.backward(y, { seed }))
    for (const input of inputs)
      expectClose(`${input}`, await step.read(dgot.get(input)), await step.read(dwant.get(input)), 4e-6)
  }))

test('with B zero, the gradient of A is exactly zero', async () => {
  using step = gpu.step()
  const a = step.filled('f32', [4, 8], 0.3)
  a.requiresGrad = true
  const pair = { a, b: step.filled('f32', [12, 4], 0), scale: 1 }
  const y = lora(step, step.filled('f32', [5, 12], 1), step.filled('f32', [5, 8], 0.7), pair)
  const da = step.backward(y, { seed: step.filled('f32', [5, 12], 1) }).get(a)
  expect([...(await step.read(da))].every((value) => value === 0)).toBe(true)
})

const values = (n: number, k: number) => new Random(n * k).normals(n * k)
/** Frozen bases: what the op is given, and the dense values that it stands for. */
const bases: Record<string, (n: number, k: number) => [(step: Step) => LinearWeight<FloatType>, Float32Array]> = {
  nf4: (n, k) => {
    const packed = quantizeNf4(values(n, k), [n, k])
    return [(step) => uploadNf4(step, packed), dequantizeNf4(packed)]
  },
  'nf4 nested': (n, k) => {
    const packed = quantizeNf4(values(n, k), [n, k], { doubleQuant: true })
    return [(step) => uploadNf4(step, packed), dequantizeNf4(packed)]
  },
  int8: (n, k) => {
    const packed = quantizeInt8(values(n, k), [n, k])
    return [(step) => uploadInt8(step, packed), dequantizeInt8(packed)]
  },
}

for (const [name, make] of Object.entries(bases))
  for (const [n, k, rank] of [
    [16, 8, 4],
    [68, 72, 8],
    [13, 64, 4], // N that is no multiple of four
  ] as const) {
    const [upload, dense] = make(n, k)
    checkOp(`loraLinear over ${name} (${n}, ${k})`, {
      op: (step, x, a, b) => loraLinear(step, x, upload(step), { a, b, scale: 0.5 }),
      reference: (x, a, b) => withUpdate(layer(x, { shape: [n, k], data: Float64Array.from(dense) }), x, a, b, 0.5),
      // Few rows go through the GEMV; more through the tiles, which sum the update themselves.
      shapes: (n === 68 ? [[67]] : [[3], [2, 5]]).map((m) => [
        [...m, k],
        [rank, k],
        [n, rank],
      ]),
      tolerance: 4e-6,
    })
  }

checkOp('loraLinear over a dense weight that is trained as well', {
  op: (step, x, weight, a, b) => loraLinear(step, x, weight, { a, b, scale: 0.5 }),
  reference: (x, weight, a, b) => withUpdate(layer(x, weight), x, a, b, 0.5),
  shapes: [
    [
      [2, 5, 8],
      [12, 8],
      [4, 8],
      [12, 4],
    ],
    [
      [3, 7],
      [5, 7],
      [2, 7],
      [5, 2],
    ],
  ],
  tolerance: 4e-6,
})

// Rows 0, 1, … have adapter 1, none, 0, 2, 1, …; one adapter has no row at all.
const idsOf = (count: number, length: number) =>
  Uint32Array.from({ length }, (_, i) => [1, noAdapter, 0, 2][i % 4]).map((id) =>
    id < count || id === noAdapter ? id : 0,
  )

for (const span of [1, 3])
  checkOp(`loraBatch, ${span} rows an id`, {
    op: (step, base, x, a, b) => {
      const count = a.shape[0]
      const factors = step.upload(
        'f32',
        [count],
        Array.from({ length: count }, (_, i) => 0.5 + i),
      )
      const rows = x.size / x.shape.at(-1)!
      const ids = step.upload('u32', [rows / span], idsOf(count, rows / span))
      return loraBatch(step, base, x, { a, b, factors }, ids)
    },
    reference: (base, x, a, b) => {
      const [count, , k] = a.shape
      const factors = Array.from({ length: count }, (_, i) => 0.5 + i)
      return withUpdates(base, x, { a, b, factors }, idsOf(count, x.data.length / k / span), span)
    },
    shapes: [
      [
        [3, 4],
        [3, 4],
        [1, 4, 4],
        [1, 4, 4],
      ],
      [
        [2, 6, 20],
        [2, 6, 8],
        [4, 8, 8],
        [4, 20, 8],
      ],
      [
        [9, 24],
        [9, 268],
        [3, 4, 268],
        [3, 24, 4],
      ],
    ],
    tolerance: 4e-6,
  })

test('a batch of adapters of different ranks is what each of them does alone', () =>
  withoutLeaks(async () => {
    const random = new Random(4)
    const [n, k, m] = [12, 16, 7]
    const pairs: HostLoraPair[] = [3, 8, 4].map((rank) => ({
      ...{ rank, scale: 1 / rank, a: random.normals(rank * k), b: random.normals(n * rank) },
    }))
    using step = gpu.step()
    const stack = uploadLoraStack(step, 'f32', [n, k], pairs)
    expect(stack.a.shape).toEqual([3, 8, 16])
    const x = step.upload('f32', [m, k], random.normals(m * k))
    const base = step.upload('f32', [m, n], random.normals(m * n))
    const ids = [2, 0, noAdapter, 1, 1, 0, 2]
    const got = await step.read(loraBatch(step, base, x, stack, step.upload('u32', [m], ids)))
    const alone: Tensor<'f32'>[] = pairs.map(({ rank, a, b, scale }) =>
      plainLora(step, base, x, { a: step.upload('f32', [rank, k], a), b: step.upload('f32', [n, rank], b), scale }),
    )
    const wanted = await Promise.all([...alone, base].map((y) => step.read(y)))
    for (const [row, id] of ids.entries())
      expectClose(
        `row ${row}`,
        got.subarray(row * n, row * n + n),
        (wanted[id] ?? wanted[3]).subarray(row * n, row * n + n),
        4e-6,
      )
    await step.checkGuards()
  }))

test('low-rank updates say what does not fit', () => {
  using step = gpu.step()
  const tensor = (...shape: number[]) => step.filled('f32', shape, 1)
  const pair = { a: tensor(4, 8), b: tensor(12, 4), scale: 1 }
  expect(() => lora(step, tensor(2, 12), tensor(2, 9), pair)).toThrow('Cannot lora x [2,9]: a must be [4,9], got [4,8]')
  expect(() => lora(step, tensor(2, 16), tensor(2, 8), pair)).toThrow('b must be [16,4], got [12,4]')
  expect(() => loraLinear(step, tensor(2, 9), tensor(12, 8), pair)).toThrow('weight is [12,8], so x must be (…, 8)')
  expect(() => anyLinear(step, tensor(2, 9), tensor(12, 8))).toThrow('the inner dimensions are 9 and 8')
  const stack = { a: tensor(2, 4, 8), b: tensor(2, 12, 4), factors: tensor(2) }
  const ids = step.filled('u32', [3], 0)
  expect(() => loraBatch(step, tensor(4, 12), tensor(4, 8), stack, ids)).toThrow(
    'its 4 rows cannot be shared out among 3',
  )
  expect(() => uploadLoraStack(step, 'f32', [12, 8], [{ rank: 2, a: [1], b: [1], scale: 1 }])).toThrow(
    'Cannot uploadLoraStack adapter 0 of rank 2: a layer [12,8] needs 16 and 24 numbers, got 1 and 1',
  )
})
