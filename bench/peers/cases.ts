// The ops that a peer has too: their inputs, what should come out, and how we run them. Each peer says in its own file
// how it runs an `op`.
import { Random } from '../../src/core/random.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'
import { add } from '../../src/kernels/add.ts'
import { attention } from '../../src/kernels/attention.ts'
import { gelu, mul, silu, swiglu } from '../../src/kernels/elementwise.ts'
import { embedding } from '../../src/kernels/embedding.ts'
import { loraLinear } from '../../src/kernels/lora.ts'
import { crossEntropy } from '../../src/kernels/losses.ts'
import { linear, matmul } from '../../src/kernels/matmul.ts'
import { nf4Linear } from '../../src/kernels/nf4.ts'
import { rowSum, sum } from '../../src/kernels/reduce.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { rope } from '../../src/kernels/rope.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { type Array64, mapped } from '../../tests/reference/array64.ts'
import { attentionOracle, causal as causalSight, rope64 } from '../../tests/reference/attention.ts'
import { crossEntropy64 } from '../../tests/reference/losses.ts'
import { layer, product as product64 } from '../../tests/reference/products.ts'
import { embedding64, gelu64, rmsNorm64, rowSum64, silu64, softmax64 } from '../../tests/reference/rows.ts'
import { dequantizeInt4, quantizeInt4 } from './int4.ts'
import { loraStep64 } from './lora-step.ts'

/** A tensor on the host. Ids, and the packed words of a quantised weight, are u32. */
export interface Operand {
  readonly dtype: 'f32' | 'u32'
  readonly shape: readonly number[]
  readonly data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>
}

/** The inputs of a case by name. */
export type Inputs = Readonly<Record<string, Operand>>

/** What is computed; a peer looks it up. */
export type Op =
  | 'matmulNN'
  | 'matmulNT'
  | 'matmulTN'
  | 'nf4Linear'
  | 'int4Linear'
  | 'attention'
  | 'causalAttention'
  | 'rmsNorm'
  | 'rope'
  | 'embedding'
  | 'crossEntropy'
  | 'softmax'
  | 'rowSum'
  | 'silu'
  | 'gelu'
  | 'swiglu'
  | 'add'
  | 'mul'
  | 'loraStep'

/** One op at one size that we and a peer run. */
export interface PeerCase {
  /** Where bench/cases.ts has the same op at the same size, its name. */
  readonly name: string
  readonly op: Op
  /** Seeded: every process makes the same. */
  inputs(): Inputs
  ours(step: Step, tensors: Readonly<Record<string, Tensor>>): Tensor
  /** The result in f64. */
  reference(inputs: Inputs): Array64
  /** What the peer should give, where its number format is another one than ours. */
  theirReference?(inputs: Inputs): Array64
  /** Largest error that passes, over the largest magnitude of the result. */
  readonly tolerance: number
}

/** Added to the mean square in rmsNorm. */
export const eps = 1e-5

const rows = 2048
const width = 512

function normal(random: Random, ...shape: number[]): Operand {
  return { dtype: 'f32', shape, data: random.normals(shape.reduce((a, b) => a * b, 1)) }
}

function ids(random: Random, end: number, ...shape: number[]): Operand {
  const size = shape.reduce((a, b) => a * b, 1)
  return { dtype: 'u32', shape, data: Uint32Array.from({ length: size }, () => random.integer(end)) }
}

/** Cosines and sines of rope's angles (T, D/2): the peers want them as inputs, our kernel computes them. */
function turns(tokens: number, half: number): Inputs {
  const table = (f: (angle: number) => number): Operand => ({
    dtype: 'f32',
    shape: [1, tokens, 1, half],
    data: Float32Array.from({ length: tokens * half }, (_, i) =>
      f(Math.floor(i / half) * 10_000 ** (-(i % half) / half)),
    ),
  })
  return { cosines: table(Math.cos), sines: table(Math.sin) }
}

/** What is added to causal scores (T, T): for peers without a causal form. */
function causalMask(tokens: number): Operand {
  const size = tokens ** 2
  const data = Float32Array.from({ length: size }, (_, i) => (i % tokens > Math.floor(i / tokens) ? -1e9 : 0))
  return { dtype: 'f32', shape: [tokens, tokens], data }
}

/** An operand in f64. */
function wide({ shape, data }: Operand): Array64 {
  return { shape, data: Float64Array.from(data) }
}

/** Tensors have the dtypes of the inputs they were uploaded from. */
type F32 = Tensor<'f32'>

function product(form: 'NN' | 'NT' | 'TN', name: string, left: readonly number[], right: readonly number[]): PeerCase {
  const [transposeA, transposeB] = [form === 'TN', form === 'NT']
  return {
    name: `matmul ${form} ${name}`,
    op: `matmul${form}`,
    tolerance: 1e-5,
    inputs() {
      const random = new Random(1)
      return { a: normal(random, ...left), b: normal(random, ...right) }
    },
    ours: (step, { a, b }) => matmul(step, a as F32, b as F32, { transposeA, transposeB }),
    reference: ({ a, b }) => product64(wide(a), wide(b), transposeA, transposeB),
  }
}

/** x · weightᵀ with a weight of four bits: ours is NF4, theirs NF4 or int4. */
function fourBit(op: 'nf4Linear' | 'int4Linear', m: number, k: number, n: number): PeerCase {
  const int4 = op === 'int4Linear'
  return {
    name: `nf4Linear ${m}×${k}×${n}${int4 ? ', theirs int4' : ''}`,
    op,
    tolerance: 1e-5,
    inputs() {
      const random = new Random(1)
      const x = normal(random, m, k)
      const weight = random.normals(n * k)
      const { codes, scales } = quantizeNf4(weight, [n, k])
      const nf4 = { x, codes: words(codes), scales: floats(scales) }
      if (!int4) return nf4
      const other = quantizeInt4(weight)
      return { ...nf4, int4Codes: words(other.codes), int4Scales: floats(other.scales) }
    },
    ours: (step, { x, codes, scales }) =>
      nf4Linear(step, x as F32, {
        shape: [n, k],
        codes: codes as Tensor<'u32'>,
        scales: scales as F32,
      }),
    reference({ x, codes, scales }) {
      const packed = { shape: [n, k], codes: bytesOf(codes), scales: scales.data as Float32Array<ArrayBuffer> }
      return layer(wide(x), { shape: [n, k], data: Float64Array.from(dequantizeNf4(packed)) })
    },
    theirReference: int4
      ? ({ x, int4Codes, int4Scales }) => {
          const data = dequantizeInt4({ codes: bytesOf(int4Codes), scales: int4Scales.data as Float32Array })
          return layer(wide(x), { shape: [n, k], data: Float64Array.from(data) })
        }
      : undefined,
  }
}

function words(codes: Uint8Array<ArrayBuffer>): Operand {
  return { dtype: 'u32', shape: [codes.length / 4], data: new Uint32Array(codes.buffer) }
}

function floats(data: Float32Array<ArrayBuffer>): Operand {
  return { dtype: 'f32', shape: [data.length], data }
}

/** The bytes of packed words. */
export function bytesOf({ data }: Operand): Uint8Array<ArrayBuffer> {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}

function attentionCase(causal: boolean, name: string, query: readonly number[], key: readonly number[]): PeerCase {
  return {
    name: `attention ${name}`,
    op: causal ? 'causalAttention' : 'attention',
    tolerance: 1e-5,
    inputs() {
      const random = new Random(1)
      const inputs = { q: normal(random, ...query), k: normal(random, ...key), v: normal(random, ...key) }
      return causal ? { ...inputs, mask: causalMask(query[1]) } : inputs
    },
    ours: (step, { q, k, v }) => attention(step, q as F32, k as F32, v as F32, { causal }),
    reference: ({ q, k, v }) =>
      attentionOracle(wide(q), wide(k), wide(v), causal ? causalSight(query[1], key[1]) : () => true),
  }
}

function elementwise(
  op: 'silu' | 'gelu' | 'swiglu' | 'add' | 'mul',
  ours: (step: Step, x: F32, z: F32) => Tensor,
  f: (...values: number[]) => number,
): PeerCase {
  const binary = op !== 'silu' && op !== 'gelu'
  return {
    name: `${op} ${rows}×${width}`,
    op,
    tolerance: 2e-6,
    inputs(): Inputs {
      const random = new Random(1)
      const x = normal(random, rows, width)
      return binary ? { x, z: normal(random, rows, width) } : { x }
    },
    ours: (step, { x, z }) => ours(step, x as F32, z as F32),
    reference: ({ x, z }) => mapped(f, ...(binary ? [wide(x), wide(z)] : [wide(x)])),
  }
}

/** Factor of the update in {@link loraStep}. */
export const loraScale = 2

/** Forward and backward of Σ y² over a gated FFN whose gate has a low-rank update: the gradient of its A. */
function loraStep(tokens: number, width: number, hidden: number, rank: number): PeerCase {
  return {
    name: `LoRA step of an FFN: ${tokens}×${width}, ${hidden} inside, rank ${rank}`,
    op: 'loraStep',
    tolerance: 1e-5,
    inputs() {
      const random = new Random(1)
      const matrix = (...shape: [number, number]): Operand => ({
        ...{ dtype: 'f32', shape },
        data: random.normals(shape[0] * shape[1], shape[1] ** -0.5),
      })
      return {
        ...{ x: normal(random, tokens, width), gate: matrix(hidden, width), up: matrix(hidden, width) },
        ...{ down: matrix(width, hidden), a: matrix(rank, width), b: matrix(hidden, rank) },
      }
    },
    ours(step, tensors) {
      const { x, gate, up, down, a, b } = tensors as Record<string, F32>
      using inner = step.inner('LoRA step')
      a.requiresGrad = true
      const inside = swiglu(inner, loraLinear(inner, x, gate, { a, b, scale: loraScale }), linear(inner, x, up))
      const y = linear(inner, inside, down)
      return inner.keep(inner.backward(sum(inner, mul(inner, y, y))).get(a), step)
    },
    reference: (inputs) => loraStep64(inputs, loraScale),
  }
}

/** Every op that at least one peer has. */
export const peerCases: readonly PeerCase[] = [
  loraStep(128, 576, 1536, 8),
  ...[256, 512, 1024].flatMap((n) =>
    (['NN', 'NT', 'TN'] as const).map((form) => product(form, `${n}³`, [n, n], [n, n])),
  ),
  product('NT', '16×(128×128×64)', [16, 128, 64], [16, 128, 64]),
  ...[
    [256, 256, 256],
    [256, 512, 512],
    [512, 512, 512],
    [1024, 1024, 1024],
    [1, 2048, 2048],
  ].flatMap(([m, k, n]) => [fourBit('nf4Linear', m, k, n), fourBit('int4Linear', m, k, n)]),
  attentionCase(true, '8×128, 8 heads of 64, 2 key heads', [8, 128, 8, 64], [8, 128, 2, 64]),
  attentionCase(false, '8×128, 8 heads of 64, not causal', [8, 128, 8, 64], [8, 128, 8, 64]),
  elementwise('add', add, (x, z) => x + z),
  elementwise('mul', mul, (x, z) => x * z),
  elementwise('silu', silu, silu64),
  elementwise('gelu', gelu, gelu64),
  elementwise('swiglu', swiglu, (x, z) => silu64(x) * z),
  {
    name: `softmax ${rows}×${width}`,
    op: 'softmax',
    tolerance: 2e-6,
    inputs: () => ({ x: normal(new Random(1), rows, width) }),
    ours: (step, { x }) => softmax(step, x as F32),
    reference: ({ x }) => softmax64(wide(x)),
  },
  {
    name: `rowSum ${rows}×${width}`,
    op: 'rowSum',
    tolerance: 1e-5,
    inputs: () => ({ x: normal(new Random(1), rows, width) }),
    ours: (step, { x }) => rowSum(step, x as F32),
    reference: ({ x }) => rowSum64(wide(x)),
  },
  {
    name: `rmsNorm ${rows}×${width}`,
    op: 'rmsNorm',
    tolerance: 5e-6,
    inputs() {
      const random = new Random(1)
      return { x: normal(random, rows, width), weight: normal(random, width) }
    },
    ours: (step, { x, weight }) => rmsNorm(step, x as F32, weight as F32, { eps }),
    reference: ({ x, weight }) => rmsNorm64(wide(x), wide(weight), eps),
  },
  {
    name: 'rope 8×256, 8 heads of 64',
    op: 'rope',
    tolerance: 1e-4, // the sine of an angle of 255 in f32
    inputs: () => ({
      x: normal(new Random(1), 8, 256, 8, 64),
      frequencies: { dtype: 'f32', shape: [32], data: ropeFrequencies(10_000, 64).inverse },
      ...turns(256, 32),
    }),
    ours: (step, { x, frequencies }) => rope(step, x as F32, frequencies as F32),
    reference: ({ x, frequencies }) => rope64(wide(x), frequencies.data),
  },
  {
    name: 'embedding 4096 of 1024×256',
    op: 'embedding',
    tolerance: 0,
    inputs() {
      const random = new Random(1)
      return { table: normal(random, 1024, 256), ids: ids(random, 1024, 4096) }
    },
    ours: (step, { table, ids }) => embedding(step, table as F32, ids as Tensor<'u32'>),
    reference: ({ table, ids }) => embedding64(wide(table), ids),
  },
  {
    name: `crossEntropy ${rows}×${width}`,
    op: 'crossEntropy',
    tolerance: 5e-6,
    inputs() {
      const random = new Random(1)
      return { x: normal(random, rows, width), ids: ids(random, width, rows) }
    },
    ours: (step, { x, ids }) => crossEntropy(step, x as F32, ids as Tensor<'u32'>),
    reference: ({ x, ids }) => crossEntropy64(wide(x), ids.data),
  },
]
