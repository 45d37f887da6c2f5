import { causalConv1d } from '../../src/kernels/causal-conv1d.ts'
import { selectiveScan, selectiveScanStep } from '../../src/kernels/selective-scan.ts'
import { ssd } from '../../src/kernels/ssd.ts'
import type { Case } from './case.ts'

/** Convolution, selective scan and state-space duality. */
export const stateSpaceCases: readonly Case[] = [
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
]
