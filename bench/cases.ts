import type { FloatType } from '../src/core/dtype.ts'
import { Random } from '../src/core/random.ts'
import { dynamicMap, unsignedDynamicMap } from '../src/formats/dynamic-map.ts'
import { quantizeInt8 } from '../src/formats/int8.ts'
import { quantizeNf4 } from '../src/formats/nf4.ts'
import { adamw } from '../src/kernels/adamw.ts'
import { adamw8 } from '../src/kernels/adamw8.ts'
import { add } from '../src/kernels/add.ts'
import { attention } from '../src/kernels/attention.ts'
import { attentionDecode, type KvCache, kvAppend } from '../src/kernels/attention-decode.ts'
import { causalConv1d } from '../src/kernels/causal-conv1d.ts'
import { centre } from '../src/kernels/centre.ts'
import { gelu, mul, scale, silu, swiglu } from '../src/kernels/elementwise.ts'
import { embedding } from '../src/kernels/embedding.ts'
import { shrinkSketch } from '../src/kernels/frequent-directions.ts'
import { gather } from '../src/kernels/gather.ts'
import { dequantizeInt8, int8Linear, uploadInt8 } from '../src/kernels/int8.ts'
import { lora, loraLinear } from '../src/kernels/lora.ts'
import { loraBatch } from '../src/kernels/lora-batch.ts'
import { crossEntropy, divergence, topKDivergence } from '../src/kernels/losses.ts'
import { linear, matmul } from '../src/kernels/matmul.ts'
import { dequantizeNf4, nf4Linear, uploadNf4 } from '../src/kernels/nf4.ts'
import { sum } from '../src/kernels/reduce.ts'
import { relationKl } from '../src/kernels/relation-kl.ts'
import { rmsNorm } from '../src/kernels/rms-norm.ts'
import { rope } from '../src/kernels/rope.ts'
import { cosine, squaredError } from '../src/kernels/row-distance.ts'
import { addColumnSums, addScatter, type PairSum, pairSum, triangleSize } from '../src/kernels/scatter.ts'
import { argmax, sample, topK } from '../src/kernels/select.ts'
import { selectiveScan, selectiveScanStep } from '../src/kernels/selective-scan.ts'
import { softmax } from '../src/kernels/softmax.ts'
import { ssd } from '../src/kernels/ssd.ts'
import { maskWords, restrictTokens } from '../src/kernels/token-mask.ts'
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

  /** Minus the magnitudes of normal values, wanting a gradient: rates of decay. */
  negative(...shape: number[]): Tensor<'f32'> {
    const size = shape.reduce((a, b) => a * b, 1)
    const x = this.#scope.upload(
      'f32',
      shape,
      this.#random.normals(size).map((value) => -Math.abs(value)),
    )
    x.requiresGrad = true
    return x
  }

  /** A sum that is kept as two floats. */
  pair(size: number): PairSum {
    return pairSum(this.#scope, size, 'sum')
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

  /** The values of the codes of 8-bit moments. */
  dynamicMaps(): Tensor<'f32'> {
    return this.#scope.upload('f32', [512], [...dynamicMap, ...unsignedDynamicMap])
  }

  /** A weight in NF4, its scales plain or nested. */
  nf4(n: number, k: number, doubleQuant = false) {
    return uploadNf4(this.#scope, quantizeNf4(this.#random.normals(n * k), [n, k], { doubleQuant }))
  }

  /** A weight in int8. */
  int8(n: number, k: number) {
    return uploadInt8(this.#scope, quantizeInt8(this.#random.normals(n * k), [n, k]))
  }

  /** A dense weight in half precision. */
  half(...shape: number[]): Tensor<'f16'> {
    return this.#scope.upload('f16', shape, this.#random.normals(shape.reduce((a, b) => a * b, 1)))
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

/** Weights of 512 × 512 and 1024 × 2048 in every format, with the product that reads them. */
const weights: Record<string, (make: Maker, n: number, k: number) => (step: Step, x: Tensor<'f32'>) => Tensor> = {
  linear: (make, n, k) => {
    const weight = make.constant(n, k)
    return (step, x) => linear(step, x, weight)
  },
  nf4Linear: (make, n, k) => {
    const weight = make.nf4(n, k)
    return (step, x) => nf4Linear(step, x, weight)
  },
  'nf4Linear, nested scales,': (make, n, k) => {
    const weight = make.nf4(n, k, true)
    return (step, x) => nf4Linear(step, x, weight)
  },
  int8Linear: (make, n, k) => {
    const weight = make.int8(n, k)
    return (step, x) => int8Linear(step, x, weight)
  },
}

const quantized: readonly Case[] = [
  {
    name: 'restrictTokens 4×49152',
    backward: false,
    setup(make) {
      const [logits, mask] = [make.constant(4, 49152), make.ids(2 ** 32, 4, maskWords(49152))]
      return (step) => restrictTokens(step, logits, mask)
    },
  },
  ...Object.entries(weights).flatMap(([name, weight]): Case[] => [
    {
      name: `${name} 256×512×512`,
      backward: true,
      setup(make) {
        const [x, op] = [make.normal(256, 512), weight(make, 512, 512)]
        return (step) => op(step, x)
      },
    },
    ...[1, 4].map(
      (m): Case => ({
        name: `${name} GEMV ${m}×1024×2048`,
        backward: false,
        setup(make) {
          const [x, op] = [make.constant(m, 2048), weight(make, 1024, 2048)]
          return (step) => op(step, x)
        },
      }),
    ),
  ]),
  {
    name: 'linear f16 GEMV 1×1024×2048',
    backward: false,
    setup(make) {
      const [x, weight] = [make.half(1, 2048), make.half(1024, 2048)]
      return (step) => linear(step, x, weight)
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
    name: 'dequantizeInt8 512×512',
    backward: false,
    setup(make) {
      const weight = make.int8(512, 512)
      return (step) => dequantizeInt8(step, weight, 'f32')
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
  ...(['dense', 'nf4', 'int8'] as const).map(
    (kind): Case => ({
      name: `loraLinear rank 8 over ${kind} 256×512×512`,
      backward: true,
      setup(make) {
        const x = make.normal(256, 512)
        const weight = kind === 'dense' ? make.constant(512, 512) : make[kind](512, 512)
        const pair = { a: make.normal(8, 512), b: make.normal(512, 8), scale: 1 }
        return (step) => loraLinear(step, x as Tensor<FloatType>, weight, pair)
      },
    }),
  ),
  {
    name: 'loraBatch 4 adapters of rank 8, 256×512×512',
    backward: true,
    setup(make) {
      const [base, x, ids] = [make.normal(256, 512), make.normal(256, 512), make.ids(4, 256)]
      const stack = { a: make.normal(4, 8, 512), b: make.normal(4, 512, 8), factors: make.constant(4) }
      return (step) => loraBatch(step, base, x, stack, ids)
    },
  },
]

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
  ...quantized,
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
      const frequencies = make.positive(32)
      return (step) => rope(step, x, frequencies)
    },
  },
  {
    name: 'causalConv1d 4 taps 4×512×512',
    backward: true,
    setup(make) {
      const [x, weight, bias] = [make.normal(4, 512, 512), make.normal(512, 4), make.normal(512)]
      return (step) => causalConv1d(step, x, weight, { bias, activation: 'silu' })
    },
  },
  ...[256, 1024, 4096].map(
    (tokens): Case => ({
      name: `selectiveScan 16 states 1×${tokens}×256`,
      backward: true,
      setup(make) {
        const [x, delta] = [make.normal(1, tokens, 256), make.normal(1, tokens, 256)]
        const [b, c, skip] = [make.normal(1, tokens, 16), make.normal(1, tokens, 16), make.normal(256)]
        const a = make.negative(256, 16)
        return (step) => selectiveScan(step, x, delta, a, b, c, { skip, softplus: true })
      },
    }),
  ),
  {
    name: 'selectiveScanStep 16 states 8×1024',
    backward: false,
    setup(make) {
      const [x, delta] = [make.constant(8, 1, 1024), make.constant(8, 1, 1024)]
      const [b, c, state] = [make.constant(8, 1, 16), make.constant(8, 1, 16), make.constant(8, 1024, 16)]
      const a = make.negative(1024, 16)
      return (step) => selectiveScanStep(step, x, delta, a, b, c, state, { softplus: true })
    },
  },
  ...[256, 1024, 4096].map(
    (tokens): Case => ({
      name: `ssd 64 states 1×${tokens}, 8 heads of 32`,
      backward: true,
      setup(make) {
        const [x, dt, a] = [make.normal(1, tokens, 8, 32), make.normal(1, tokens, 8), make.negative(8)]
        const [b, c, skip] = [make.normal(1, tokens, 1, 64), make.normal(1, tokens, 1, 64), make.normal(8)]
        return (step) => ssd(step, x, dt, a, b, c, { skip, softplus: true })
      },
    }),
  ),
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
    name: 'PCA update 2048×256: triangle of the scatter, sums',
    backward: false,
    setup(make) {
      const [x, weights, shift] = [make.constant(2048, 256), make.positive(2048), make.constant(256)]
      const [scatter, sums] = [make.pair(triangleSize(256)), make.pair(256)]
      return (step) => {
        addColumnSums(step, sums, x, weights, shift)
        addScatter(step, scatter, x, weights, shift)
        return sums.hi
      }
    },
  },
  {
    name: 'PCA update 2048×256 of plain ops: centre, then matmul',
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
    name: 'PCA shrink of Frequent Directions 32×512',
    backward: false,
    setup(make) {
      const [buffer, shed] = [make.constant(32, 512), make.constant(1)]
      return (step) => {
        shrinkSketch(step, buffer, shed, 16)
        return shed
      }
    },
  },
  {
    name: 'adamw 1 million parameters',
    backward: false,
    setup(make) {
      const [weight, gradient] = [make.constant(1024, 1024), make.constant(1024, 1024)]
      const [m, v] = [make.constant(1024, 1024), make.positive(1024, 1024)]
      return (step) => adamw(step, [{ weight, gradient, m, v, decay: 0.01 }], { rates: { lr: 1e-6, t: 10 }, clip: 1 })
    },
  },
  {
    name: 'adamw8 1 million parameters',
    backward: false,
    setup(make) {
      const [weight, gradient, largest] = [make.constant(1024, 1024), make.constant(1024, 1024), make.positive(4096, 2)]
      const codes = () => make.ids(2 ** 32, 2 ** 18)
      const maps = make.dynamicMaps()
      const target = { weight, gradient, m: codes(), v: codes(), largest, decay: 0.01 }
      return (step) => adamw8(step, [target], { rates: { lr: 1e-6, t: 10 }, clip: 1, maps })
    },
  },
]
