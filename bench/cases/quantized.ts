import type { FloatType } from '../../src/core/dtype.ts'
import { dequantizeInt8 } from '../../src/kernels/int8.ts'
import { anyLinear, lora, loraLinear } from '../../src/kernels/lora.ts'
import { loraBatch } from '../../src/kernels/lora-batch.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { dequantizeNf4 } from '../../src/kernels/nf4.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { layer, withUpdate, withUpdates } from '../../tests/reference/products.ts'
import { type Case, define, type WeightKind } from './case.ts'

/** The product that reads each format. */
const products: Record<WeightKind, string> = {
  dense: 'linear',
  nf4: 'nf4Linear',
  'nested nf4': 'nf4Linear, nested scales,',
  int8: 'int8Linear',
}

/** Products with weights of every format, and low-rank updates. */
export const quantizedCases: readonly Case[] = [
  ...(Object.entries(products) as [WeightKind, string][]).flatMap(([kind, name]): Case[] => [
    define({
      name: `${name} 256×512×512`,
      inputs: (make) => ({ x: make.normal(256, 512), weight: make.weight(kind, 512, 512) }),
      op: (step, { x, weight }) => anyLinear(step, x as Tensor<FloatType>, weight),
      reference: ({ x, weight }) => layer(x, weight),
    }),
    ...[1, 4].map((m) =>
      define({
        name: `${name} GEMV ${m}×1024×2048`,
        inputs: (make) => ({ x: make.constant(m, 2048), weight: make.weight(kind, 1024, 2048) }),
        op: (step, { x, weight }) => anyLinear(step, x as Tensor<FloatType>, weight),
        reference: ({ x, weight }) => layer(x, weight),
      }),
    ),
  ]),
  define({
    name: 'linear f16 GEMV 1×1024×2048',
    tolerance: 2e-3,
    inputs: (make) => ({ x: make.half(false, 1, 2048), weight: make.half(false, 1024, 2048) }),
    op: (step, { x, weight }) => linear(step, x, weight),
    reference: ({ x, weight }) => layer(x, weight),
  }),
  define({
    name: 'dequantizeNf4 512×512',
    inputs: (make) => ({ weight: make.nf4(512, 512) }),
    op: (step, { weight }) => dequantizeNf4(step, weight, 'f32'),
    reference: ({ weight }) => weight,
  }),
  define({
    name: 'dequantizeInt8 512×512',
    inputs: (make) => ({ weight: make.int8(512, 512) }),
    op: (step, { weight }) => dequantizeInt8(step, weight, 'f32'),
    reference: ({ weight }) => weight,
  }),
  define({
    name: 'lora rank 8 256×512×512',
    tolerance: 4e-6,
    inputs: (make) => ({
      ...{ base: make.normal(256, 512), x: make.normal(256, 512) },
      ...{ a: make.normal(8, 512), b: make.normal(512, 8) },
    }),
    op: (step, { base, x, a, b }) => lora(step, base as Tensor<FloatType>, x, { a, b, scale: 1 }),
    reference: ({ base, x, a, b }) => withUpdate(base, x, a, b, 1),
  }),
  ...(['dense', 'nf4', 'int8'] as const).map((kind) =>
    define({
      name: `loraLinear rank 8 over ${kind} 256×512×512`,
      tolerance: 4e-6,
      inputs: (make) => ({
        ...{ x: make.normal(256, 512), weight: make.weight(kind, 512, 512) },
        ...{ a: make.normal(8, 512), b: make.normal(512, 8) },
      }),
      op: (step, { x, weight, a, b }) => loraLinear(step, x as Tensor<FloatType>, weight, { a, b, scale: 1 }),
      reference: ({ x, weight, a, b }) => withUpdate(layer(x, weight), x, a, b, 1),
    }),
  ),
  define({
    name: 'loraBatch 4 adapters of rank 8, 256×512×512',
    tolerance: 4e-6,
    inputs: (make) => ({
      ...{ base: make.normal(256, 512), x: make.normal(256, 512), ids: make.ids(4, 256) },
      ...{ a: make.normal(4, 8, 512), b: make.normal(4, 512, 8), factors: make.constant(4) },
    }),
    op: (step, { base, x, a, b, factors, ids }) => loraBatch(step, base, x, { a, b, factors }, ids),
    reference: ({ base, x, a, b, factors, ids }) => withUpdates(base, x, { a, b, factors: factors.data }, ids.data),
  }),
]
