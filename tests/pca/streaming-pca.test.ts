import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { centre } from '../../src/kernels/centre.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { addScatter, pairSum, scatterTiers, triangleSize, unpackTriangle } from '../../src/kernels/scatter.ts'
import { decompose, mergePcaStates, type PcaState } from '../../src/pca/pca-state.ts'
import { ShiftedCovariance } from '../../src/pca/shifted-covariance.ts'
import { loadPcaState, savePcaState } from '../../src/pca/state-file.ts'
import { StreamingPca } from '../../src/pca/streaming-pca.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { exactState, largestSine, powerLaw } from './exact.ts'

/** Streams the rows of `x` in the given order of batches, each a range of rows. */
async function stream(x: Float32Array, d: number, ranges: readonly (readonly [number, number])[]): Promise<PcaState> {
  using pca = new ShiftedCovariance(gpu, d)
  for (const [begin, end] of ranges) {
    using step = gpu.step()
    const n = end - begin
    const rows = step.upload('f32', [n, d], x.subarray(begin * d, end * d))
    pca.update(step, rows, step.upload('f32', [n], new Float32Array(n).fill(1)), n)
  }
  return pca.state()
}

test.each([24, 33, 100])('the streamed covariance of dimension %d is that of f64, whatever the batches', (d) =>
  withoutLeaks(async () => {
    const rows = 900
    const x = powerLaw(new Random(2), rows, d)
    const want = exactState(x, rows, d)
    using pca = new ShiftedCovariance(gpu, d)
    for (let begin = 0; begin < rows; ) {
      const count = Math.min(rows - begin, 100 + begin)
      using step = gpu.step()
      // A row of weight 0 must leave no trace, whatever it holds.
      const part = new Float32Array((count + 1) * d).fill(Number.NaN)
      part.set(x.subarray(begin * d, (begin + count) * d), d)
      const weights = Float32Array.from({ length: count + 1 }, (_, i) => (i === 0 ? 0 : 1))
      pca.update(step, step.upload('f32', [count + 1, d], part), step.upload('f32', [count + 1], weights), count)
      begin += count
    }
    const got = await pca.state()
    expect(got.count).toBe(rows)
    expectClose('mean', got.mean, want.mean, 1e-7)
    expectClose('scatter', got.scatter, want.scatter, 3e-7)
    expectClose('eigenvalues', decompose(got).eigenvalues, decompose(want).eigenvalues, 3e-7)
  }),
)

test.runIf(gpu.capabilities.f16)('rows in f16 are summed as exactly', async () => {
  const [rows, d] = [300, 40]
  using step = gpu.step()
  const half = step.upload('f16', [rows, d], powerLaw(new Random(8), rows, d))
  const want = exactState(await step.read(half), rows, d)
  using pca = new StreamingPca(gpu, d)
  pca.update(step, half, step.filled('f32', [rows], 1), rows)
  expectClose('scatter', ((await pca.state()) as PcaState).scatter, want.scatter, 3e-7)
})

test('the fused triangle is the product of centred copies that it replaces', async () => {
  const random = new Random(6)
  for (const [rows, d] of [
    [1, 4],
    [5, 12],
    [70, 64],
    [600, 132],
  ] as const) {
    using step = gpu.step()
    const x = step.upload('f32', [rows, d], random.normals(rows * d))
    const weights = step.upload(
      'f32',
      [rows],
      Float32Array.from({ length: rows }, () => random.integer(2)),
    )
    const shift = step.upload('f32', [d], random.normals(d))
    const moved = centre(step, x, weights, shift)
    const want = await step.read(matmul(step, moved, moved, { transposeA: true }))
    for (const tier of scatterTiers(gpu)) {
      const total = pairSum(step, triangleSize(d), 'total')
      addScatter(step, total, x, weights, shift, tier)
      expectClose(tier, unpackTriangle(d, await step.read(total.hi), await step.read(total.lo)), want, 1e-6)
    }
    await step.checkGuards()
  }
})

test('on a power-law spectrum the subspace is that of f64, in 20 orders and from 8 merged parts', async () => {
  const [rows, d, k, batch] = [20_000, 256, 16, 2500]
  const x = powerLaw(new Random(9), rows, d)
  const want = decompose(exactState(x, rows, d)).components
  using held = gpu.scope('batches')
  const weights = held.filled('f32', [batch], 1)
  const batches = Array.from({ length: rows / batch }, (_, i) =>
    held.upload('f32', [batch, d], x.subarray(i * batch * d, (i + 1) * batch * d)),
  )
  const collect = async (order: typeof batches) => {
    using pca = new ShiftedCovariance(gpu, d)
    using step = gpu.step()
    for (const part of order) pca.update(step, part, weights, batch)
    return pca.state()
  }
  const random = new Random(10)
  for (let order = 0; order < 20; order++) {
    const { components } = decompose(await collect(random.shuffle([...batches])))
    expect(largestSine(components, want, d, k), `order ${order}`).toBeLessThan(1e-6)
  }
  const parts: PcaState[] = []
  for (const part of batches) parts.push(await collect([part]))
  for (let order = 0; order < 3; order++) {
    const merged = random.shuffle([...parts]).reduce((sum, part) => mergePcaStates(sum, part))
    expect(merged.count).toBe(rows)
    expect(largestSine(decompose(merged).components, want, d, k), `merge ${order}`).toBeLessThan(1e-6)
  }
})

test('a saved state comes back to the last bit, and a stream goes on from it', async () => {
  const [rows, d] = [500, 30]
  const x = powerLaw(new Random(11), rows, d)
  const early = await stream(x, d, [[0, 200]])
  const loaded = loadPcaState(savePcaState(early)) as PcaState
  expect(loaded.count).toBe(200)
  expect(loaded.mean).toEqual(early.mean)
  expect(loaded.scatter).toEqual(early.scatter)

  using pca = new StreamingPca(gpu, d, { from: loaded })
  using step = gpu.step()
  pca.update(step, step.upload('f32', [300, d], x.subarray(200 * d)), step.filled('f32', [300], 1), 300)
  expect(pca.count).toBe(500)
  expectClose('scatter', ((await pca.state()) as PcaState).scatter, exactState(x, rows, d).scatter, 3e-7)
  expect(() => new StreamingPca(gpu, 31, { from: loaded })).toThrow('Cannot go on from a state of dimension 30')
})

test('a damaged state file is refused', () => {
  const bytes = savePcaState(exactState(powerLaw(new Random(1), 5, 3), 5, 3))
  const text = new TextDecoder('latin1').decode(bytes)
  const change = (from: string, to: string) =>
    Uint8Array.from(text.replace(from, to), (character) => character.charCodeAt(0))
  expect(() => loadPcaState(change('nexus-pca-state-1', 'nexus-pca-state-9'))).toThrow(
    'its format is nexus-pca-state-9',
  )
  expect(() => loadPcaState(change('covariance', 'covarianca'))).toThrow('its kind is "covarianca"')
  expect(() => loadPcaState(change('"scatter"', '"scattes"'))).toThrow('the tensor scatter is missing')
  expect(() => loadPcaState(change('count\\":5', 'count\\":-'))).toThrow(SyntaxError)
})

test('the method follows dimension and memory, and misuse is refused', () => {
  const method = (d: number, options = {}) => {
    using pca = new StreamingPca(gpu, d, options)
    return pca.method
  }
  expect(method(64)).toBe('covariance')
  expect(method(64, { memory: 1000 })).toBe('frequent-directions')
  expect(method(5000)).toBe('frequent-directions')
  expect(method(64, { method: 'frequent-directions' })).toBe('frequent-directions')
  expect(() => new ShiftedCovariance(gpu, 4097)).toThrow('Frequent Directions takes more')

  using step = gpu.step()
  using pca = new StreamingPca(gpu, 8)
  const x = step.filled('f32', [3, 8], 1)
  expect(() => pca.update(step, step.filled('f32', [3, 9], 1), step.filled('f32', [3], 1), 3)).toThrow('dimension is 8')
  expect(() => pca.update(step, x, step.filled('f32', [4], 1), 3)).toThrow('weights must have 3 elements, got [4]')
  expect(() => pca.update(step, x, step.filled('f32', [3], 1), 4)).toThrow('0 to 3, got 4')
})
