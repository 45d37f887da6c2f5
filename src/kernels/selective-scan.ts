import type { FloatType } from '../core/dtype.ts'
import { showShape } from '../core/shape.ts'
import { expectRank, expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import {
  selectiveScanBackward as backwardWgsl,
  selectiveScanChannels as channelsWgsl,
  selectiveScanStep as stepWgsl,
  selectiveScan as wgsl,
} from './wgsl.gen.ts'

/** What {@link selectiveScan} needs beside its sequences. */
export interface ScanOptions<D extends FloatType> {
  /** D of the paper, the dtype of `x`, (C): what of x goes past the states; none unless told. */
  readonly skip?: Tensor<D>
  /** Added to `delta`, the dtype of `x`, (C); none unless told. */
  readonly deltaBias?: Tensor<D>
  /** Whether the step size is softplus(delta + bias) instead of delta + bias; false unless told. */
  readonly softplus?: boolean
  /**
   * f32 (B, C, N): the state before the first token, overwritten with the state after the last. Zero at the start and
   * not kept unless told. It is a constant for the gradients.
   */
  readonly state?: Tensor<'f32'>
}

const chunk = 64
/** Most channels that one invocation of the sum over channels walks. */
const channelsASlice = 64

/** The sequences and weights of one scan, checked, with what all its shaders need to know. */
function problemOf<D extends FloatType>(
  op: string,
  [x, delta, a, b, c]: readonly Tensor<D>[],
  { skip, deltaBias, softplus = false, state }: ScanOptions<D>,
) {
  expectRank(op, x, 'B, T, C', 3)
  const [batch, tokens, channels] = x.shape
  const n = a.shape.at(-1) ?? 0
  expectShape(op, x, 'delta', delta, x.shape)
  expectShape(op, x, 'a', a, [channels, n])
  expectShape(op, x, 'b', b, [batch, tokens, n])
  expectShape(op, x, 'c', c, [batch, tokens, n])
  if (skip) expectShape(op, x, 'skip', skip, [channels])
  if (deltaBias) expectShape(op, x, 'deltaBias', deltaBias, [channels])
  if (state) expectShape(op, x, 'state', state, [batch, channels, n])
  if (n > 64) throw new RangeError(`Cannot ${op} x ${showShape(x.shape)}: a must have 1 to 64 states, got ${n}`)
  const chunks = Math.ceil(tokens / chunk)
  const quads = Math.ceil(n / 4)
  const flags = { softplus: softplus ? 1 : 0, has_skip: skip ? 1 : 0, has_bias: deltaBias ? 1 : 0 }
  const params = {
    ...{ tokens, channels, n, rows: batch * tokens, ...flags, has_state: state ? 1 : 0 },
    // A last slot holds the state after the last token, where somebody asks for it.
    ...{ chunks, slots: state ? chunks + 1 : chunks, slices: Math.ceil(channels / channelsASlice) },
  }
  return { batch, channels, n, chunks, quads, params, constants: { quads, chunk }, blocks: Math.ceil(channels / 64) }
}

/** B, C, A, D and the bias in the f32 quads that the scans read. */
function pack<D extends FloatType>(
  step: Step,
  { channels, quads, params, constants, blocks }: ReturnType<typeof problemOf>,
  [a, b, c]: readonly Tensor<D>[],
  { skip, deltaBias }: ScanOptions<D>,
): Tensor<'f32'> {
  const tokenQuads = params.rows * 2 * quads
  const packing = step.empty('f32', [4 * (tokenQuads + (quads + 1) * channels)], 'packed')
  const onTokens = { workgroups: grid(Math.ceil(tokenQuads / 64)), flops: 0, constants }
  step.run(wgsl.packTokens, { b, c, packing }, params, { ...onTokens, bytes: b.bytes + c.bytes + 16 * tokenQuads })
  step.run(wgsl.packChannels, { a, skip: skip ?? a, bias: deltaBias ?? a, packing }, params, {
    workgroups: [blocks, quads + 1],
    flops: 0,
    bytes: a.bytes + 16 * (quads + 1) * channels,
    constants,
  })
  return packing
}

/**
 * The selective state-space scan, chunks of 64 tokens at once:
 * h_t = exp(d_t A) h_{t−1} + d_t B_t x_t, y_t = C_t · h_t + D x_t, with d = delta + bias or softplus of it.
 * @param x f32 or f16 (B, T, C).
 * @param delta the dtype and shape of `x`: the step sizes, positive after the softplus.
 * @param a A of the paper, the dtype of `x`, (C, N), N up to 64. Negative, so that states decay; they grow without
 *   bound where it is not.
 * @param b the dtype of `x`, (B, T, N).
 * @param c the dtype and shape of `b`.
 * @returns the dtype and shape of `x`. States are f32 whatever the storage.
 * @throws RangeError when the shapes do not fit.
 * @see Gu and Dao, Mamba, 2023, section 3.
 */
export function selectiveScan<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  delta: Tensor<D>,
  a: Tensor<D>,
  b: Tensor<D>,
  c: Tensor<D>,
  options: ScanOptions<D> = {},
): Tensor<D> {
  const problem = problemOf('selectiveScan', [x, delta, a, b, c], options)
  const { batch, channels, n, chunks, quads, params, constants, blocks } = problem
  const { skip, deltaBias } = options
  const packed = pack(step, problem, [a, b, c], options)
  const states = step.empty('f32', [batch, params.slots, quads, channels, 4], 'states')
  const ahead = params.slots - 1
  const totals = step.empty('f32', [batch, Math.max(ahead, 1), channels], 'totals')
  const cells = x.size * n
  if (ahead > 0)
    step.run(wgsl.chunkStates, { x, delta, packed, states, totals }, params, {
      workgroups: [blocks, ahead, batch],
      flops: (4 * cells * ahead) / chunks,
      constants,
    })
  const state = options.state ?? step.empty('f32', [1], 'no state')
  const carried = 3 * batch * ahead * channels * n
  step.run(wgsl.carry, { packed, states, totals, state }, params, {
    workgroups: [blocks, quads, batch],
    flops: carried,
    bytes: 2 * states.bytes,
    constants,
  })
  const y = step.empty(x.dtype, x.shape, 'selectiveScan')
  step.run(wgsl.forward, { x, delta, packed, boundaries: states, y }, params, {
    workgroups: [blocks, chunks, batch],
    flops: 6 * cells,
    constants,
  })

  const inputs = [x, delta, a, b, c, ...(skip ? [skip] : []), ...(deltaBias ? [deltaBias] : [])]
  return step.node('selectiveScan', y, inputs, (dy) => {
    const slopes = step.empty('f32', [batch, chunks, quads + 1, channels, 4], 'slopes')
    const sums = step.empty('f32', [batch, chunks, channels], 'totals')
    if (chunks > 1)
      step.run(backwardWgsl.chunkSlopes, { delta, dy, packed, slopes, totals: sums }, params, {
        workgroups: [blocks, chunks - 1, batch],
        flops: (4 * cells * (chunks - 1)) / chunks,
        constants,
      })
    step.run(backwardWgsl.carrySlopes, { packed, slopes, totals: sums }, params, {
      workgroups: [blocks, quads, batch],
      flops: 3 * batch * (chunks - 1) * channels * n,
      bytes: 2 * slopes.bytes,
      constants,
    })
    const ofTokens = { delta, dy, packed, ends: slopes, boundaries: states, x }
    const token_sums = step.empty('f32', [params.slices, params.rows, 2, quads, 4], 'token sums')
    step.run(backwardWgsl.backwardTokens, { ...ofTokens, token_sums }, params, {
      workgroups: [Math.ceil((quads * params.slices) / 64), chunks, batch],
      flops: 14 * cells,
      constants,
    })
    const dx = step.empty(x.dtype, x.shape, 'dx')
    const ddelta = step.empty(x.dtype, x.shape, 'ddelta')
    const ofChannels = { x, delta, dy, packed, boundaries: states, slopes, dx, ddelta }
    step.run(channelsWgsl.backwardChannels, ofChannels, params, {
      workgroups: [blocks, chunks, batch],
      flops: 18 * cells,
      constants,
    })
    const db = step.empty(b.dtype, b.shape, 'db')
    const dc = step.empty(c.dtype, c.shape, 'dc')
    step.run(channelsWgsl.tokenGradients, { token_sums, db, dc }, params, {
      workgroups: grid(Math.ceil((params.rows * 2 * quads) / 64)),
      flops: token_sums.size,
      constants,
    })
    const da = step.empty(a.dtype, a.shape, 'da')
    const dskip = step.empty(x.dtype, skip ? skip.shape : [1], 'dskip')
    const dbias = step.empty(x.dtype, deltaBias ? deltaBias.shape : [1], 'dbias')
    step.run(channelsWgsl.channelGradients, { channel_sums: slopes, da, dskip, dbias }, params, {
      workgroups: [blocks, quads + 1],
      flops: slopes.size,
      constants,
    })
    return [dx, ddelta, da, db, dc, ...(skip ? [dskip] : []), ...(deltaBias ? [dbias] : [])]
  })
}

/**
 * {@link selectiveScan} of one token with a carried state, for decoding: the same numbers in one pass.
 * @param x f32 or f16 (B, 1, C); the other arguments as there, with T = 1.
 * @param state f32 (B, C, N), overwritten with the state after the token.
 * @returns the dtype and shape of `x`. It has no gradient.
 * @throws RangeError when the shapes do not fit.
 */
export function selectiveScanStep<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  delta: Tensor<D>,
  a: Tensor<D>,
  b: Tensor<D>,
  c: Tensor<D>,
  state: Tensor<'f32'>,
  options: Omit<ScanOptions<D>, 'state'> = {},
): Tensor<D> {
  const problem = problemOf('selectiveScanStep', [x, delta, a, b, c], { ...options, state })
  const { batch, n, quads, params, blocks } = problem
  if (params.tokens !== 1)
    throw new RangeError(
      `Cannot selectiveScanStep x ${showShape(x.shape)}: it must have one token; use selectiveScan for more`,
    )
  const packed = pack(step, problem, [a, b, c], options)
  const y = step.empty(x.dtype, x.shape, 'selectiveScanStep')
  step.run(stepWgsl.forward, { x, delta, packed, state, y }, params, {
    workgroups: [blocks, batch],
    flops: 6 * x.size * n,
    bytes: x.bytes + delta.bytes + packed.bytes + 2 * state.bytes + y.bytes,
    constants: { quads },
  })
  return step.node('selectiveScanStep', y, [x, delta, a, b, c], 'none')
}
