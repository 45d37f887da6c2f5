import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { type AttentionOptions, attention, rangesOfLengths, rangesOfSegments } from '../../src/kernels/attention.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { checkOp } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { attentionOracle, causal as causalWindow } from '../reference/attention.ts'

/** Shapes of q, k and v. */
const shapes = (batch: number, tokens: number, keys: number, heads: number, groups: number, size: number) => [
  [batch, tokens, heads, size],
  [batch, keys, groups, size],
  [batch, keys, groups, size],
]

function check(
  name: string,
  options: AttentionOptions,
  cases: ReturnType<typeof shapes>[],
  gradients?: number[],
): void {
  const { causal = true, window = Infinity, scale } = options
  checkOp(name, {
    op: (step, q, k, v) => attention(step, q, k, v, options),
    reference: (q, k, v) => {
      const seen = causal ? causalWindow(q.shape[1], k.shape[1], window) : () => true
      return attentionOracle(q, k, v, seen, scale)
    },
    shapes: cases,
    tolerance: 4e-6,
    gradients,
  })
}

check('attention, causal', {}, [
  shapes(2, 5, 5, 4, 2, 8),
  shapes(1, 1, 1, 1, 1, 4),
  shapes(1, 3, 7, 2, 2, 8),
  shapes(1, 70, 70, 2, 1, 4),
  shapes(2, 37, 41, 3, 1, 16),
])
check('attention, full', { causal: false, scale: 0.7 }, [
  shapes(2, 5, 5, 4, 2, 8),
  shapes(1, 9, 3, 2, 2, 8),
  shapes(1, 19, 75, 3, 3, 12),
])
check('attention, window of 5', { window: 5 }, [
  shapes(2, 3, 3, 2, 1, 8),
  shapes(1, 37, 37, 4, 2, 8),
  shapes(1, 70, 90, 2, 2, 4),
])
check('attention, window of 1', { window: 1 }, [shapes(1, 11, 11, 2, 1, 8)])
check(
  'attention, head sizes',
  {},
  [16, 80, 128, 256].map((size) => shapes(1, 5, 9, 2, 1, size)),
)

const rows = [
  [7, 7, 7, 2, 2, 2, 2, 9, 9, 9, 9],
  [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
]
checkOp('attention, packed rows', {
  op: (step, q, k, v) => attention(step, q, k, v, { ranges: rangesOfSegments(step, rows) }),
  reference: (q, k, v) => attentionOracle(q, k, v, (b, t, j) => j <= t && rows[b][j] === rows[b][t]),
  shapes: [shapes(2, 11, 11, 4, 2, 8)],
  tolerance: 4e-6,
})

for (const side of ['left', 'right'] as const)
  for (const causal of [true, false])
    checkOp(`attention, rows padded at the ${side}, ${causal ? 'causal' : 'full'}`, {
      op: (step, q, k, v) => attention(step, q, k, v, { causal, ranges: rangesOfLengths(step, [3, 0, 21], 21, side) }),
      reference: (q, k, v) =>
        attentionOracle(q, k, v, (b, t, j) => {
          const length = [3, 0, 21][b]
          return (!causal || j <= t) && (side === 'left' ? j >= 21 - length : j < length)
        }),
      shapes: [shapes(3, 21, 21, 2, 1, 8)],
      tolerance: 4e-6,
    })

test('scores far apart and large stay finite, in both directions', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const make = (scale: number) => {
      const x = step.upload('f32', [1, 40, 1, 8], new Random(3).normals(320, scale))
      x.requiresGrad = true
      return x
    }
    const [q, k, v] = [make(60), make(60), make(1)]
    const y = attention(step, q, k, v)
    const gradients = step.backward(y, { seed: y })
    for (const tensor of [y, gradients.get(q), gradients.get(k), gradients.get(v)])
      expect([...(await step.read(tensor))].every(Number.isFinite)).toBe(true)
  }))

test('memory grows with T, not with its square', async () => {
  using fresh = await Gpu.open(await openGpuRoot())
  const peak = (tokens: number) => {
    const before = fresh.memory.liveBytes
    using step = fresh.step()
    const [q, k, v] = shapes(1, tokens, tokens, 2, 2, 4).map((shape) => {
      const x = step.filled('f32', shape, 0.1)
      x.requiresGrad = true
      return x
    })
    const y = attention(step, q, k, v)
    step.backward(y, { seed: y })
    return fresh.memory.liveBytes - before
  }
  const [small, large] = [peak(256), peak(512)]
  expect(large / small).toBeGreaterThan(1.5)
  expect(large / small).toBeLessThan(2.1)
  expect(large).toBeLessThan(512 * 512 * 4) // what one matrix of scores of one head would take
})

test('the flops are those of the pairs that are seen', () => {
  const flops = (options: AttentionOptions) => {
    using step = gpu.step()
    const [q, k, v] = shapes(1, 6, 8, 2, 1, 4).map((shape) => step.filled('f32', shape, 0.1))
    attention(step, q, k, v, options)
    return step.cost.flops
  }
  const each = 2 * 4 * 4 // two heads, four operations for each of D = 4
  expect(flops({ causal: false })).toBe(each * 48)
  expect(flops({})).toBe(each * (3 + 4 + 5 + 6 + 7 + 8))
  expect(flops({ window: 5 })).toBe(each * (3 + 4 + 5 + 5 + 5 + 5))
})

test('what does not fit is refused', () => {
  using step = gpu.step()
  const zeros = (...shape: number[]) => step.filled('f32', shape, 0)
  const run = (q: number[], k: number[], options?: AttentionOptions) =>
    attention(step, zeros(...q), zeros(...k), zeros(...k), options)
  expect(() => run([1, 3, 4, 8], [1, 3, 3, 8])).toThrow(
    'Cannot attention x [1,3,4,8]: 4 heads cannot share 3 key heads',
  )
  expect(() => run([1, 3, 4, 6], [1, 3, 4, 6])).toThrow('must be a multiple of 4, got 6')
  expect(() => run([1, 3, 4, 8], [1, 2, 4, 8])).toThrow('3 queries cannot end at key 2')
  expect(() => run([1, 3, 4, 8], [1, 3, 4, 4])).toThrow('k must be [1,3,4,8], got [1,3,4,4]')
  expect(() => run([1, 3, 4, 8], [1, 3, 4, 8], { window: 0 })).toThrow('at least 1, got 0')
  expect(() => run([1, 3, 4, 8], [1, 3, 4, 8], { window: 2, causal: false })).toThrow('a window needs the causal form')
  const ranges = step.filled('u32', [1, 2, 2], 0)
  expect(() => run([1, 3, 4, 8], [1, 3, 4, 8], { ranges })).toThrow('ranges must be [1,3,2], got [1,2,2]')
  expect(() => rangesOfLengths(step, [9], 8)).toThrow('Cannot mask a row of 9 tokens: there are 8')
})
