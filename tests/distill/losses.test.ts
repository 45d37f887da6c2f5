import { expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { Random } from '../../src/core/random.ts'
import type { AnchorPlan } from '../../src/distill/anchors.ts'
import { observed } from '../../src/distill/capture.ts'
import type { CaptureRows } from '../../src/distill/capture-store.ts'
import { anchoredTerms } from '../../src/distill/losses.ts'
import { uniformRanks } from '../../src/distill/synthesize.ts'
import { idsOf, inputValues, uploadBases, uploadInputs } from '../../src/distill/term-inputs.ts'
import type { DecoderConfig } from '../../src/formats/model-config.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config: DecoderConfig = {
  ...{ vocabularySize: 32, width: 16, layers: 2, heads: 2, kvHeads: 2, headSize: 8, ffnWidth: 24 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 64, tiedHead: true, eosId: 0 },
}
const [rows, tokens, rank] = [3, 8, 4]
/** Tokens of each row that are there for another's sake: the last two are padding. */
const trained = tokens - 2
const anchors: AnchorPlan = { kept: [0, 1], outputs: [{ layer: 1, teacher: '1.output' }], query: '1.query' }
const random = new Random(5)
const bases = new Map(
  ['1.output', '1.query'].map((name) => [name, cpuTensor('F32', [rank, 16], random.normals(rank * 16))]),
)

/** Terms of a student that is the teacher, on a capture whose anchors `change` has altered. */
async function termsAfter(change: (values: Float32Array, name: string) => void) {
  using teacher = Decoder.load(gpu, config, randomTensors(config, new Random(1)))
  using adapter = Adapter.create(gpu, 'fresh', config, uniformRanks(config, 2000), new Random(2))
  const ids = Uint32Array.from({ length: rows * (tokens + 1) }, (_, i) => (7 * i) % 32)
  const weights = Float32Array.from({ length: rows * tokens }, (_, i) => (i % tokens < trained ? 1 : 0))
  const columns = new Map<string, { shape: number[]; values: Float32Array | Uint32Array }>([
    ['ids', { shape: [tokens + 1], values: ids }],
    ['weights', { shape: [tokens], values: weights }],
  ])
  const capture: CaptureRows = { rows, tokens, columns }
  using step = gpu.step()
  const projections = uploadBases(step, bases)
  const { seen } = observed(step, teacher, step.upload('u32', [rows, tokens], idsOf(capture)), projections)
  for (const [name, projected] of seen) {
    const values = Float32Array.from(await step.read(projected))
    change(values, name)
    columns.set(`anchor.${name}`, { shape: [tokens, rank], values })
  }
  const inputs = uploadInputs(step, inputValues(capture, { targets: true, top: false, anchors: true }))
  const terms = anchoredTerms(step, { student: teacher, adapter, inputs, anchors, bases: projections })
  return { activation: await step.readNumber(terms.activation!), attention: await step.readNumber(terms.attention!) }
}

test('the terms of a student that is its teacher are zero', () =>
  withoutLeaks(async () => {
    const { activation, attention } = await termsAfter(() => {})
    expect(activation).toBeLessThan(1e-6)
    expect(Math.abs(attention)).toBeLessThan(1e-5)
  }))

test('the first token and padding are not anchored', () =>
  withoutLeaks(async () => {
    const { activation } = await termsAfter((values) => {
      for (let i = 0; i < rows * tokens; i++)
        if (i % tokens === 0 || i % tokens >= trained) values.fill(1e4, i * rank, (i + 1) * rank)
    })
    expect(activation).toBeLessThan(1e-6)
  }))

test('one token that is off by ten thousand counts little more than one that is off by a hundred', () =>
  withoutLeaks(async () => {
    const off = (by: number) =>
      termsAfter((values, name) => {
        if (name === '1.output') for (let c = 0; c < rank; c++) values[3 * rank + c] += by
      })
    const counted = rows * (trained - 1)
    expect((await off(100)).activation).toBeCloseTo(Math.log1p(100 ** 2) / counted, 4)
    expect((await off(1e4)).activation).toBeCloseTo(Math.log1p(1e4 ** 2) / counted, 4)
  }))
