import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat64 } from '../../src/formats/tensor.ts'
import { IncrementalPca } from '../../src/pca/incremental-pca.ts'
import { largestSine } from './exact.ts'

interface Case {
  readonly x: string
  readonly divisor: number
  readonly nComponents: number | null
  readonly whiten: boolean
  readonly batchSize: number | null
  readonly batches: number[] | null
  readonly nSamplesSeen: number
}

const { tensors, metadata } = parseSafetensors(
  readFileSync(join(import.meta.dirname, '../oracles/golden/incremental-pca.safetensors')),
)
const cases = Object.entries(JSON.parse(metadata.cases) as Record<string, Case>)

/** The rows of a case: integers of a byte or of two, divided. */
function rowsOf({ x, divisor }: Case): number[][] {
  const { dtype, shape, data } = tensors.get(`${x}/x`)!
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const read = (i: number) => (dtype === 'U8' ? view.getUint8(i) : view.getInt16(2 * i, true))
  return Array.from({ length: shape[0] }, (_, r) =>
    Array.from({ length: shape[1] }, (_, c) => read(r * shape[1] + c) / divisor),
  )
}

function relative(got: ArrayLike<number>, want: ArrayLike<number>, bound: number): void {
  expect(got.length).toBe(want.length)
  for (let i = 0; i < got.length; i++)
    expect(
      Math.abs(got[i] - want[i]) / Math.max(Math.abs(want[i]), 1e-8),
      `${i}: ${got[i]}, want ${want[i]}`,
    ).toBeLessThan(bound)
}

describe.each(cases)('%s as scikit-learn has it', (name, item) => {
  const x = rowsOf(item)
  const golden = (key: string) => toFloat64(tensors.get(`${name}/${key}`)!)
  const pca = new IncrementalPca({
    nComponents: item.nComponents ?? undefined,
    whiten: item.whiten,
    batchSize: item.batchSize ?? undefined,
  })
  if (item.batches === null) pca.fit(x)
  else {
    let begin = 0
    for (const size of item.batches) {
      pca.partialFit(x.slice(begin, begin + size))
      begin += size
    }
  }
  const d = x[0].length
  const k = pca.components.length

  test('values', () => {
    expect(pca.nSamplesSeen).toBe(item.nSamplesSeen)
    relative(pca.explainedVarianceRatio, golden('explainedVarianceRatio'), 1e-9)
    relative(pca.explainedVariance, golden('explainedVariance'), 1e-9)
    relative(pca.singularValues, golden('singularValues'), 1e-9)
    relative(pca.mean, golden('mean'), 1e-9)
    relative(pca.var, golden('var'), 1e-9)
    relative([pca.noiseVariance], golden('noiseVariance'), 1e-9)
  })

  test('components, signs included', () => {
    const want = golden('components')
    expect(want.length).toBe(k * d)
    const columns = (entry: (i: number, c: number) => number) =>
      Float64Array.from({ length: d * k }, (_, at) => entry(at % k, Math.floor(at / k)))
    const [a, b] = [columns((i, c) => pca.components[i][c]), columns((i, c) => want[i * d + c])]
    for (let i = 1; i <= k; i++) expect(largestSine(a, b, d, i), `first ${i}`).toBeLessThan(1e-7)
    for (let at = 0; at < a.length; at++) expect(Math.abs(a[at] - b[at])).toBeLessThan(1e-7)
  })

  test('transform and back', () => {
    const y = pca.transform(x.slice(0, 5))
    const want = golden('transform')
    for (let at = 0; at < want.length; at++) expect(y[Math.floor(at / k)][at % k]).toBeCloseTo(want[at], 6)
    const back = pca.inverseTransform(y)
    const wantBack = golden('inverseTransform')
    for (let at = 0; at < wantBack.length; at++) expect(back[Math.floor(at / d)][at % d]).toBeCloseTo(wantBack[at], 6)
  })
})

test('it refuses what scikit-learn refuses, and nothing else', () => {
  const random = [1, 0.3, -2, 0.7, 1.9, -0.4]
  const ok = Array.from({ length: 6 }, (_, r) => Array.from({ length: 4 }, (_, c) => random[(r * (c + 1)) % 6] + c * r))
  const pca = (nComponents?: number) => new IncrementalPca({ nComponents })
  expect(() => pca(5).partialFit(ok)).toThrow('Cannot partialFit x [6,4]: nComponents is 5, at most 4 fit')
  expect(() => pca(3).partialFit(ok.slice(0, 2))).toThrow('the first batch must have at least nComponents rows, 3')
  expect(pca(3).partialFit(ok).partialFit(ok.slice(0, 2)).nSamplesSeen).toBe(8)
  const narrow = ok.map((row) => row.slice(0, 3))
  expect(() => pca(2).partialFit(ok).partialFit(narrow)).toThrow('IncrementalPca expects 4 features')
  expect(() => pca(0)).toThrow('nComponents must be a positive integer, got 0')
  expect(() => new IncrementalPca({ batchSize: 1.5 })).toThrow('batchSize must be a positive integer')
  expect(() => pca(2).partialFit([])).toThrow('x must have a row and a column')
  expect(() => pca(2).partialFit([[1, Number.NaN]])).toThrow('x[0,1] is NaN')
  expect(() => pca(2).transform(ok)).toThrow('has seen nothing yet')
  expect(() => pca(2).partialFit(ok).transform(narrow)).toThrow('it must have 4 columns')
  expect(() => pca(2).partialFit(ok).inverseTransform(ok)).toThrow('it must have 2 columns')
})
