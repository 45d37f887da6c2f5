import type { FloatType } from '../../src/core/dtype.ts'
import { dequantizeInt8, int8Linear } from '../../src/kernels/int8.ts'
import { lora, loraLinear } from '../../src/kernels/lora.ts'
import { loraBatch } from '../../src/kernels/lora-batch.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { dequantizeNf4, nf4Linear } from '../../src/kernels/nf4.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import type { Case, Maker } from './case.ts'

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

/** Products with weights of every format, and low-rank updates. */
export const quantizedCases: readonly Case[] = [
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
