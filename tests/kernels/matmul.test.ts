import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { cast } from '../../src/kernels/copy.ts'
import { linear, matmul } from '../../src/kernels/matmul.ts'
import { type ProductTier, productTiers, productWork } from '../../src/kernels/product.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import type { Array64 } from '../reference/array64.ts'
import { product } from '../reference/products.ts'

const forms = [
  { name: 'NN', transposeA: false, transposeB: false, swap: (a: number[], b: number[]) => [a, b] },
  { name: 'NT', transposeA: false, transposeB: true, swap: (a: number[], b: number[]) => [a, flip(b)] },
  { name: 'TN', transposeA: true, transposeB: false, swap: (a: number[], b: number[]) => [flip(a), b] },
]

function flip(shape: number[]): number[] {
  return [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!]
}

// Ragged ones take the kernel for any size; multiples of four the tiles, inside and past one; long sums are split.
const anySize = [
  [
    [5, 37],
    [37, 3],
  ],
  [
    [1, 1],
    [1, 1],
  ],
  [
    [2, 3, 35, 7],
    [2, 3, 7, 66],
  ],
]
const fours = [
  [
    [4, 8],
    [8, 4],
  ],
  [
    [68, 36],
    [36, 76],
  ],
  [
    [132, 20],
    [20, 8],
  ],
  [
    [3, 12, 20],
    [3, 20, 72],
  ],
  [
    [2, 8, 420],
    [2, 420, 12],
  ],
  [
    [24, 1028],
    [1028, 20],
  ],
]

for (const { name, transposeA, transposeB, swap } of forms) {
  checkOp(`matmul ${name} of any size`, {
    op: (step, a, b) => matmul(step, a, b, { transposeA, transposeB }),
    reference: (a, b) => product(a, b, transposeA, transposeB),
    shapes: anySize.map(([a, b]) => swap(a, b)),
  })
  for (const tier of productTiers(gpu, 'f32'))
    checkOp(`matmul ${name} with ${tier}`, {
      op: (step, a, b) => {
        choose(tier)
        try {
          return matmul(step, a, b, { transposeA, transposeB, alpha: -0.5 })
        } finally {
          choose(undefined)
        }
      },
      reference: (a, b) => scaled(product(a, b, transposeA, transposeB), -0.5),
      shapes: fours.map(([a, b]) => swap(a, b)),
    })
}

/** Forces one tier for all products, or none. */
function choose(tier: ProductTier | undefined): void {
  for (const dtype of ['f32', 'f16'] as const)
    for (const { transposeA, transposeB } of forms)
      for (const size of [1, 4096]) gpu.tuning.choose(productWork(dtype, transposeA, transposeB, size, size), tier)
}

function scaled(x: Array64, factor: number): Array64 {
  return { shape: x.shape, data: x.data.map((value) => factor * value) }
}

for (const tier of productTiers(gpu, 'f32'))
  checkOp(`linear onto a residual or a bias with ${tier}`, {
    op: (step, x, weight, base) => {
      choose(tier)
      try {
        return linear(step, x, weight, { alpha: 2, base })
      } finally {
        choose(undefined)
      }
    },
    reference: (x, weight, base) => {
      const y = scaled(product(x, weight, false, true), 2)
      return { shape: y.shape, data: y.data.map((value, i) => value + base.data[i % base.data.length]) }
    },
    shapes: [
      [
        [2, 3, 8],
        [12, 8],
        [2, 3, 12],
      ],
      [[2, 3, 8], [12, 8], [12]],
      [
        [1, 3, 8],
        [12, 8],
        [1, 3, 12],
      ],
      [[3, 8], [12, 8], [12]],
      [[5, 7], [3, 7], [3]],
      [[70, 512], [9, 512], [9]],
      [
        [70, 512],
        [9, 512],
        [70, 9],
      ],
    ],
  })

const activations = {
  silu: (v: number) => v / (1 + Math.exp(-v)),
  gelu: (v: number) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
}
for (const [activation, f] of Object.entries(activations) as ['silu' | 'gelu', (v: number) => number][]) {
  const reference = (x: Array64, weight: Array64, base: Array64): Array64 => {
    const y = product(x, weight, false, true)
    return { shape: y.shape, data: y.data.map((value, i) => f(value / 2 + base.data[i % base.data.length])) }
  }
  for (const tier of productTiers(gpu, 'f32'))
    checkOp(`${activation} of a linear layer with ${tier}, in one kernel`, {
      op: (step, x, weight, base) => {
        choose(tier)
        try {
          return linear(step, x, weight, { alpha: 0.5, base, activation })
        } finally {
          choose(undefined)
        }
      },
      reference,
      // Tiles, a split sum, any size.
      shapes: [
        [[2, 7, 8], [20, 8], [20]],
        [[6, 512], [20, 512], [20]],
        [
          [5, 7],
          [3, 7],
          [5, 3],
        ],
      ],
      gradients: [],
      dtypes: tier === 'registers 64x64' ? ['f32', 'f16'] : ['f32'],
    })
  checkOp(`${activation} of a linear layer with its gradient`, {
    op: (step, x, weight, base) => linear(step, x, weight, { alpha: 0.5, base, activation }),
    reference,
    shapes: [
      [[6, 8], [20, 8], [20]],
      [
        [2, 8],
        [5, 8],
        [2, 5],
      ],
    ],
  })
}

test('an activation in the product is one dispatch', () => {
  using step = gpu.step()
  const [x, weight] = [step.filled('f32', [8, 64], 1), step.filled('f32', [32, 64], 1)]
  linear(step, x, weight, { activation: 'gelu' })
  expect(step.cost.dispatches).toBe(1)
})

checkOp('matmul with one b for all rows', {
  op: (step, a, b) => matmul(step, a, b, { transposeB: true }),
  reference: (a, b) => product(a, b, false, true),
  shapes: [
    [
      [3, 5, 8],
      [12, 8],
    ],
  ],
})

test('sums stay accurate over long rows with channels 60 times larger', async () => {
  const random = new Random(5)
  const [m, n, k] = [3, 5, 14_336]
  const channels = Float64Array.from({ length: k }, (_, i) => (i % 97 === 0 ? 60 : 1))
  const values = (rows: number) => random.normals(rows * k).map((value, i) => (value * channels[i % k]) / 16)
  for (const dtype of gpu.capabilities.f16 ? (['f32', 'f16'] as const) : (['f32'] as const)) {
    using step = gpu.step()
    const inputs = [m, n].map((rows) => step.upload(dtype, [rows, k], values(rows)))
    const [a, b] = await Promise.all(inputs.map((x) => step.read(x)))
    const y = await step.read(linear(step, inputs[0], inputs[1]))
    const [left, right] = [
      { shape: [m, k], data: Float64Array.from(a) },
      { shape: [n, k], data: Float64Array.from(b) },
    ]
    const want = product(left, right, false, true).data
    expectClose(dtype, y, want, dtype === 'f32' ? 2e-6 : 2e-3)
  }
})

// It is read as it would be after a cast: every sum has the same terms in the same order.
test.runIf(gpu.capabilities.f16)('a factor in f16 under f32 gives the bits that its cast gives', async () => {
  const random = new Random(6)
  for (const [m, n, k] of [
    [2, 68, 288],
    [37, 44, 132],
    [7, 5, 6],
  ]) {
    using step = gpu.step()
    const x = step.upload('f32', [m, k], random.normals(m * k))
    x.requiresGrad = true
    const half = step.upload('f16', [n, k], random.normals(n * k))
    const seed = step.upload('f32', [m, n], random.normals(m * n))
    const runs = [half, cast(step, half, 'f32')].map((weight) => {
      const y = linear(step, x, weight)
      return [y, step.backward(y, { seed, retain: [x] }).get(x)]
    })
    const [got, want] = await Promise.all(runs.map((run) => Promise.all(run.map((tensor) => step.read(tensor)))))
    expect(got).toEqual(want)
    expect(got.every((values) => values.every(Number.isFinite))).toBe(true)
  }
})

test('matmul says what does not fit', () => {
  using step = gpu.step()
  const a = step.filled('f32', [2, 3], 1)
  expect(() => matmul(step, a, step.filled('f32', [4, 5], 1))).toThrow(
    'Cannot matmul a [2,3] with b [4,5]: the inner dimensions are 3 and 4',
  )
  const half = step.filled('f16' as 'f32', [3, 3], 1)
  expect(() => matmul(step, half, step.filled('f32', [3, 5], 1))).toThrow('Cannot matmul a f16 with b f32')
  expect(() => matmul(step, step.filled('f32', [3, 5], 1), half, { transposeA: true })).toThrow('b f16')
})

test('matmul can be differentiated twice', async () => {
  using step = gpu.step()
  const x = step.upload('f32', [1, 1], [3])
  x.requiresGrad = true
  const cube = matmul(step, matmul(step, x, x), x)
  const first = step.backward(cube, { createGraph: true }).get(x)
  expect(await step.readNumber(first)).toBeCloseTo(27, 4)
  const second = step.backward(first).get(x)
  expect(await step.readNumber(second)).toBeCloseTo(18, 4)
})
