import { fusedLinear, gatedLinear } from '../../src/kernels/fused-linear.ts'
import { linear, matmul } from '../../src/kernels/matmul.ts'
import type { Case } from './case.ts'

/** Dense products. */
export const productsCases: readonly Case[] = [
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
    name: 'matmul NT 512³, f16',
    backward: true,
    setup(make) {
      const [a, b] = [make.half(512, 512), make.half(512, 512)]
      for (const factor of [a, b]) factor.requiresGrad = true
      return (step) => matmul(step, a, b, { transposeB: true })
    },
  },
  {
    name: 'linear onto a residual 256×512×512',
    backward: true,
    setup(make) {
      const [x, weight, base] = [make.normal(256, 512), make.normal(512, 512), make.normal(256, 512)]
      return (step) => linear(step, x, weight, { base })
    },
  },
  // The products of a decoded token, with the norm, the residual stream and the gate inside.
  ...(['dense', 'nf4', 'int8'] as const).flatMap((kind): Case[] => [
    {
      name: `fusedLinear over ${kind}, norm and residual, 1×576×576`,
      backward: false,
      setup(make) {
        const [x, gain, base] = [make.constant(1, 576), make.constant(576), make.constant(1, 576)]
        const weight = kind === 'dense' ? make.constant(576, 576) : make[kind](576, 576)
        return (step) => fusedLinear(step, x, weight, { norm: { gain, eps: 1e-5 }, base })
      },
    },
    {
      name: `gatedLinear over ${kind}, norm and SiLU, 1×576×1536`,
      backward: false,
      setup(make) {
        const [x, gain] = [make.constant(1, 576), make.constant(576)]
        const weight = () => (kind === 'dense' ? make.constant(1536, 576) : make[kind](1536, 576))
        const [gate, up] = [weight(), weight()]
        return (step) => gatedLinear(step, x, gate, up, { activation: 'silu', norm: { gain, eps: 1e-5 } })
      },
    },
  ]),
]
