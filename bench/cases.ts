import type { FloatType } from '../src/core/dtype.ts'
import { Random } from '../src/core/random.ts'
import { quantizeNf4 } from '../src/formats/nf4.ts'
import { adamw } from '../src/kernels/adamw.ts'
import { add } from '../src/kernels/add.ts'
import { attention } from '../src/kernels/attention.ts'
import { attentionDecode, type KvCache, kvAppend } from '../src/kernels/attention-decode.ts'
import { centre } from '../src/kernels/centre.ts'
import { gelu, mul, scale, silu, swiglu } from '../src/kernels/elementwise.ts'
import { embedding } from '../src/kernels/embedding.ts'
import { gather } from '../src/kernels/gather.ts'
import { lora } from '../src/kernels/lora.ts'
import { crossEntropy, divergence, topKDivergence } from '../src/kernels/losses.ts'
import { matmul } from '../src/kernels/matmul.ts'
import { dequantizeNf4, nf4Linear } from '../src/kernels/nf4.ts'
import { sum } from '../src/kernels/reduce.ts'
import { relationKl } from '../src/kernels/relation-kl.ts'
import { rmsNorm } from '../src/kernels/rms-norm.ts'
import { rope } from '../src/kernels/rope.ts'
import { cosine, squaredError } from '../src/kernels/row-distance.ts'
import { argmax, sample, topK } from '../src/kernels/select.ts'
import { softmax } from '../src/kernels/softmax.ts'
import type { Scope } from '../src/runtime/scope.ts'
import type { Step } from '../src/runtime/step.ts'
import type { Tensor } from '../src/runtime/tensor.ts'

/** One op at one size. */
export interface Case {
  readonly name: string
  /** Makes the inputs and gives back what to time. The last value is what a backward pass starts from. */
  setup(make: Maker): (step: Step) => Tensor
  /** Whether the backward pass is timed as well. */
  readonly backward: boolean
}

/** Makes inputs that live as long as the case. */
export class Maker {
  readonly #scope: Scope
  readonly #random = new Random(1)

  constructor(scope: Scope) {
    this.#scope = scope
  }

  /** Normal values that want a gradient. */
  normal(...shape: number[]): Tensor<'f32'> {
    const x = this.constant(...shape)
    x.requiresGrad = true
    return x
  }

  /** Normal values that want none. */
  constant(...shape: number[]): Tensor<'f32'> {
    return this.#scope.upload('f32', shape, this.#random.normals(shape.reduce((a, b) => a * b, 1)))
  }

  /** Magnitudes of normal values. */
  positive(...shape: number[]): Tensor<'f32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    return this.#scope.upload('f32', shape, this.#random.normals(size).map(Math.abs))
  }

  /** Integers below `end`. */
  ids(end: number, ...shape: number[]): Tensor<'u32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    return this.#scope.upload(
      'u32',
      shape,
      Uint32Array.from({ length: size }, () => this.#random.integer(end)),
    )
  }

  /** A full cache of `keys` keys a row, in pages. */
  cache(batch: number, keys: number, pageSize: number, groups: number, headSize: number): KvCache<'f32'> {
    const pages = keys / pageSize
    const table = Uint32Array.from({ length: batch * pages }, (_, i) => i)
    const shape = [batch * pages, pageSize, groups, headSize]
    return {
      k: this.constant(...shape),
      v: this.constant(...shape),
      pageTable: this.#scope.upload('u32', [batch, pages], table),
      position: this.#scope.upload('u32', [batch], new Uint32Array(batch).fill(keys - 1)),
    }
  }

  /** A weight in NF4. */
  nf4(n: number, k: number) {
    const { codes, scales } = quantizeNf4(this.#random.normals(n * k), [n, k])
    const words = new Uint32Array(codes.buffer)
    const upload = this.#scope
    return {
      shape: [n, k],
      codes: upload.upload('u32', [words.length], words),
      scales: upload.upload('f32', [scales.length], scales),
    }
  }
}

const rows = 2048
const width = 512

function unary(name: string, op: (step: Step, x: Tensor<'f32'>) => Tensor): Case {
  return {
    name: `${name} ${rows}×${width}`,
    backward: true,
    setup(make) {
      const x = make.normal(rows, width)
      return (step) => op(step, x)
    },
  }
}

function binary(name: string, op: (step: Step, x: Tensor<'f32'>, z: Tensor<'f32'>) => Tensor): Case {
  return {
    name: `${name} ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, z] = [make.normal(rows, width), make.normal(rows, width)]
      return (step) => op(step, x, z)
    },
  }
}

/** Every op of the library. */
export const cases: readonly Case[] = [
  ...[256, 512].flatMap((n): Case[] =>
    (['NN', 'NT', 'TN'] as const).map((form) => ({
      name: `matmul ${form} ${n}³`,
      backward: form === 'NT',
      setup(make) {
        const [a, b] = [make.normal(n, n), make.normal(n, n)]
        return (step) => matmul(step, a, b, { transposeA: form === 'TN', transposeB: form === 'NT' })
      },
    })),
  ),
  {
    name: 'matmul NT 16×(128×128×64)',
    backward: true,
    setup(make) {
      const [a, b] = [make.normal(16, 128, 64), make.normal(16, 128, 64)]
      return (step) => matmul(step, a, b, { transposeB: true })
    },
  },
  {
    name: 'nf4Linear 256×512×512',
    backward: true,
    setup(make) {
      const [x, weight] = [make.normal(256, 512), make.nf4(512, 512)]
      return (step) => nf4Linear(step, x, weight)
    },
  },
  {
    name: 'dequantizeNf4 512×512',
    backward: false,
    setup(make) {
      const weight = make.nf4(512, 512)
      return (step) => dequantizeNf4(step, weight, 'f32')
    },
  },
  {
    name: 'lora rank 8 256×512×512',
    backward: true,
    setup(make) {
      const [base, x] = [make.normal(256, 512), make.normal(256, 512)]
      const pair = { a: make.normal(8, 512), b: make.normal(512, 8), scale: 1 }
      return (step) => lora(step, base as Tensor<FloatType>, x, pair)
    },
  },
  {
    name: 'attention 8×128, 8 heads of 64, 2 key heads',
    backward: true,
    setup(make) {
      const [q, k, v] = [make.normal(8, 128, 8, 64), make.normal(8, 128, 2, 64), make.normal(8, 128, 2, 64)]
      return (step) => attention(step, q, k, v)
    },
  },
  {
    name: 'attention 1×512, 4 heads of 64, a window of 128',
    backward: true,
    setup(make) {
      const [q, k, v] = [make.normal(1, 512, 4, 64), make.normal(1, 512, 4, 64), make.normal(1, 512, 4, 64)]
      return (step) => attention(step, q, k, v, { window: 128 })
    },
  },
  {
    name: 'attentionDecode 4×1, 8 heads of 64, 2 key heads, 1024 keys in pages of 16',
    backward: false,
    setup(make) {
      const [q, cache] = [make.constant(4, 1, 8, 64), make.cache(4, 1024, 16, 2, 64)]
      return (step) => attentionDecode(step, q, cache)
    },
  },
  {
    name: 'kvAppend 4×32, 2 key heads of 64',
    backward: false,
    setup(make) {
      const [k, v] = [make.constant(4, 32, 2, 64), make.constant(4, 32, 2, 64)]
      const cache = { ...make.cache(4, 1024, 16, 2, 64), position: make.ids(900, 4) }
      return (step) => {
        kvAppend(step, cache, k, v)
        return cache.k
      }
    },
  },
  {
    name: 'relationKl 4×256, 64 features of the student, 32 of the teacher',
    backward: true,
    setup(make) {
      const [student, teacher] = [make.normal(4, 256, 64), make.constant(4, 256, 32)]
      return (step) => relationKl(step, student, teacher)
    },
  },
  binary('add', add),
  binary('mul', mul),
  unary('scale', (step, x) => scale(step, x, 2)),
  unary('silu', silu),
  unary('gelu', gelu),
  binary('swiglu', swiglu),
  unary('softmax', softmax),
  unary('sum', sum),
  binary('squaredError', squaredError),
  binary('cosine', cosine),
  {
    name: `rmsNorm ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, weight] = [make.normal(rows, width), make.normal(width)]
      return (step) => rmsNorm(step, x, weight)
    },
  },
  {
    name: 'rope 8×256, 8 heads of 64',
    backward: true,
    setup(make) {
      const x = make.normal(8, 256, 8, 64)
      return (step) => rope(step, x)
    },
  },
  {
    name: 'embedding 4096 of 1024×256',
    backward: true,
    setup(make) {
      const [table, ids] = [make.normal(1024, 256), make.ids(1024, 4096)]
      return (step) => embedding(step, table, ids)
    },
  },
  {
    name: 'gather 8 of 512, 2048 rows',
    backward: true,
    setup(make) {
      const [x, ids] = [make.normal(rows, width), make.ids(width, rows, 8)]
      return (step) => gather(step, x, ids)
    },
  },
  {
    name: `crossEntropy ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, targets] = [make.normal(rows, width), make.ids(width, rows)]
      return (step) => crossEntropy(step, x, targets)
    },
  },
  ...(['forwardKl', 'reverseKl', 'jsd', 'skewedKl', 'skewedReverseKl'] as const).map(
    (kind): Case => ({
      name: `${kind} ${rows}×${width}`,
      backward: true,
      setup(make) {
        const [x, teacher] = [make.normal(rows, width), make.constant(rows, width)]
        return (step) => divergence(step, x, teacher, { kind })
      },
    }),
  ),
  {
    name: `topKDivergence 16 of ${width}, ${rows} rows`,
    backward: true,
    setup(make) {
      const [x, ids] = [make.normal(rows, width), make.ids(width, rows, 16)]
      const probabilities = make.constant(rows, 16)
      return (step) => topKDivergence(step, x, ids, probabilities)
    },
  },
  {
    name: `argmax ${rows}×${width}`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => argmax(step, x)
    },
  },
  {
    name: `topK 8 of ${width}, ${rows} rows`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => topK(step, x, 8).values
    },
  },
  {
    name: `sample ${rows}×${width}`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => sample(step, x, { seed: 1 })
    },
  },
  {
    name: 'centre and scatter, the PCA update, 2048×256',
    backward: false,
    setup(make) {
      const [x, weights, shift] = [make.constant(2048, 256), make.constant(2048), make.constant(256)]
      return (step) => {
        const moved = centre(step, x, weights, shift)
        return matmul(step, moved, moved, { transposeA: true })
      }
    },
  },
  {
    name: 'adamw 1 million parameters',
    backward: false,
    setup(make) {
      const [weight, gradient] = [make.constant(1024, 1024), make.constant(1024, 1024)]
      const [m, v] = [make.constant(1024, 1024), make.positive(1024, 1024)]
      return (step) => adamw(step, [{ weight, gradient, m, v, decay: 0.01 }], { lr: 1e-6, t: 10, clip: 1 })
    },
  },
]
