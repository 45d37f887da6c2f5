import { fusedLinear, gatedLinear } from '../../src/kernels/fused-linear.ts'
import { linear, matmul } from '../../src/kernels/matmul.ts'
import { mapped } from '../../tests/reference/array64.ts'
import { layer, product, sum64 } from '../../tests/reference/products.ts'
import { rmsNorm64, silu64 } from '../../tests/reference/rows.ts'
import { type Case, define } from './case.ts'

const eps = 1e-5

/** Dense products. */
export const productsCases: readonly Case[] = [
  ...[256, 512].flatMap((n): Case[] =>
    (['NN', 'NT', 'TN'] as const).map((form) => {
      const [transposeA, transposeB] = [form === 'TN', form === 'NT']
      return define({
        name: `matmul ${form} ${n}³`,
        inputs: (make) => ({ a: make.normal(n, n), b: make.normal(n, n) }),
        op: (step, { a, b }) => matmul(step, a, b, { transposeA, transposeB }),
        reference: ({ a, b }) => product(a, b, transposeA, transposeB),
      })
    }),
  ),
  define({
    name: 'matmul NT 16×(128×128×64)',
    inputs: (make) => ({ a: make.normal(16, 128, 64), b: make.normal(16, 128, 64) }),
    op: (step, { a, b }) => matmul(step, a, b, { transposeB: true }),
    reference: ({ a, b }) => product(a, b, false, true),
  }),
  define({
    name: 'matmul NT 512³, f16',
    tolerance: 2e-3,
    inputs: (make) => ({ a: make.half(true, 512, 512), b: make.half(true, 512, 512) }),
    op: (step, { a, b }) => matmul(step, a, b, { transposeB: true }),
    reference: ({ a, b }) => product(a, b, false, true),
  }),
  define({
    name: 'linear onto a residual 256×512×512',
    inputs: (make) => ({ x: make.normal(256, 512), weight: make.normal(512, 512), base: make.normal(256, 512) }),
    op: (step, { x, weight, base }) => linear(step, x, weight, { base }),
    reference: ({ x, weight, base }) => sum64(base, layer(x, weight)),
  }),
  // The products of a decoded token, with the norm, the residual stream and the gate inside.
  ...(['dense', 'nf4', 'int8'] as const).flatMap((kind): Case[] => [
    define({
      name: `fusedLinear over ${kind}, norm and residual, 1×576×576`,
      inputs: (make) => ({
        ...{ x: make.constant(1, 576), gain: make.constant(576), base: make.constant(1, 576) },
        weight: make.weight(kind, 576, 576),
      }),
      op: (step, { x, gain, base, weight }) => fusedLinear(step, x, weight, { norm: { gain, eps }, base }),
      reference: ({ x, gain, base, weight }) => sum64(base, layer(rmsNorm64(x, gain, eps), weight)),
    }),
    define({
      name: `gatedLinear over ${kind}, norm and SiLU, 1×576×1536`,
      inputs: (make) => ({
        ...{ x: make.constant(1, 576), gain: make.constant(576) },
        ...{ gate: make.weight(kind, 1536, 576), up: make.weight(kind, 1536, 576) },
      }),
      op: (step, { x, gain, gate, up }) => gatedLinear(step, x, gate, up, { activation: 'silu', norm: { gain, eps } }),
      reference({ x, gain, gate, up }) {
        const input = rmsNorm64(x, gain, eps)
        return mapped((g, u) => silu64(g) * u, layer(input, gate), layer(input, up))
      },
    }),
  ]),
]
