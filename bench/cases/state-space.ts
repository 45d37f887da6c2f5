import { causalConv1d } from '../../src/kernels/causal-conv1d.ts'
import { selectiveScan, selectiveScanStep } from '../../src/kernels/selective-scan.ts'
import { ssd } from '../../src/kernels/ssd.ts'
import { mapped } from '../../tests/reference/array64.ts'
import { silu64 } from '../../tests/reference/rows.ts'
import { causalConv64, selectiveScan64, ssd64 } from '../../tests/reference/state-space.ts'
import { type Case, define } from './case.ts'

/** Roundings of f32 add up along a sequence. */
const alongTokens = 1e-5

/** Convolution, selective scan and state-space duality. */
export const stateSpaceCases: readonly Case[] = [
  define({
    name: 'causalConv1d 4 taps 4×512×512',
    inputs: (make) => ({ x: make.normal(4, 512, 512), weight: make.normal(512, 4), bias: make.normal(512) }),
    op: (step, { x, weight, bias }) => causalConv1d(step, x, weight, { bias, activation: 'silu' }),
    reference: ({ x, weight, bias }) => mapped(silu64, causalConv64(x, weight, bias)),
  }),
  ...[256, 1024, 4096].map((tokens) =>
    define({
      name: `selectiveScan 16 states 1×${tokens}×256`,
      tolerance: alongTokens,
      inputs: (make) => ({
        ...{ x: make.normal(1, tokens, 256), delta: make.normal(1, tokens, 256), a: make.negative(256, 16) },
        ...{ b: make.normal(1, tokens, 16), c: make.normal(1, tokens, 16), skip: make.normal(256) },
      }),
      op: (step, { x, delta, a, b, c, skip }) => selectiveScan(step, x, delta, a, b, c, { skip, softplus: true }),
      reference: ({ x, delta, a, b, c, skip }) => selectiveScan64([x, delta, a, b, c], { skip, softplus: true }),
    }),
  ),
  define({
    name: 'selectiveScanStep 16 states 8×1024',
    tolerance: 4e-6,
    inputs: (make) => ({
      ...{ x: make.constant(8, 1, 1024), delta: make.constant(8, 1, 1024), state: make.constant(8, 1024, 16) },
      ...{ b: make.constant(8, 1, 16), c: make.constant(8, 1, 16) },
      a: make.given('f32', [1024, 16], make.negative(1024, 16).values.data),
    }),
    op: (step, { x, delta, a, b, c, state }) => [
      selectiveScanStep(step, x, delta, a, b, c, state, { softplus: true }),
      state,
    ],
    reference({ x, delta, a, b, c, state }) {
      const moved = { shape: state.shape, data: state.data.slice() }
      return [selectiveScan64([x, delta, a, b, c], { softplus: true, state: moved.data }), moved]
    },
  }),
  ...[256, 1024, 4096].map((tokens) =>
    define({
      name: `ssd 64 states 1×${tokens}, 8 heads of 32`,
      tolerance: alongTokens,
      inputs: (make) => ({
        ...{ x: make.normal(1, tokens, 8, 32), dt: make.normal(1, tokens, 8), a: make.negative(8) },
        ...{ b: make.normal(1, tokens, 1, 64), c: make.normal(1, tokens, 1, 64), skip: make.normal(8) },
      }),
      op: (step, { x, dt, a, b, c, skip }) => ssd(step, x, dt, a, b, c, { skip, softplus: true }),
      reference: ({ x, dt, a, b, c, skip }) => ssd64([x, dt, a, b, c], { skip, softplus: true }),
    }),
  ),
]
