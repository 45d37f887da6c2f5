import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cachePath } from '../../src/host/cache.ts'
import { Engine } from '../../src/inference/engine.ts'
import { measurePerplexity } from '../../src/inference/perplexity.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { type OpenModel, openModel } from '../../src/models/open-model.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { mobyDickText } from './moby-dick.ts'

// Real models against transformers and llama.cpp. They are fetched by scripts/fetch-test-models.ts; without them these
// tests are skipped. NEXUS_GENERATIONS says how many of the 20 prompts are compared over all their 64 tokens; all are over
// their first dozen. NEXUS_PERPLEXITY says how many of the 4,096 tokens are measured; 128 unless told.

interface Continuation {
  readonly prompt: number[]
  readonly answer: number[]
}

/** Sums of −log p over groups of tokens, window after window (tests/oracles/make-perplexity.py). */
interface Losses {
  readonly tokens: number
  readonly predicted: number
  readonly context: number
  readonly group: number
  readonly prefix: readonly number[]
  readonly sha256: string
  readonly llamaCpp: { readonly losses: number[]; readonly writtenOut: number[]; readonly blas: number[] }
  readonly transformers: { readonly losses: number[] }
}

const readGolden = (name: string) =>
  JSON.parse(readFileSync(join(import.meta.dirname, '../oracles/golden', name), 'utf8')) as unknown
const generations = readGolden('generations.json') as Record<string, Continuation[]>
const perplexities = readGolden('perplexity.json') as Record<string, Losses>
const folder = process.env.NEXUS_MODELS ?? cachePath('models')
const wholePrompts = Number(process.env.NEXUS_GENERATIONS ?? 0)
const measured = Number(process.env.NEXUS_PERPLEXITY ?? 128)

for (const [name, cases] of Object.entries(generations)) {
  const path = join(folder, name)
  test.runIf(existsSync(path))(
    `${name}: greedy output is transformers’, token for token; perplexity is transformers’ and llama.cpp’s`,
    { timeout: 1_800_000 },
    () =>
      withoutLeaks(async () => {
        await using files = await openModel(path)
        using model = await Decoder.open(gpu, files.weights)
        await compareGenerations(files, model, cases)
        await comparePerplexity(files, model, name)
      }),
  )
}

async function compareGenerations(files: OpenModel, model: Decoder, cases: readonly Continuation[]): Promise<void> {
  expect(cases).toHaveLength(20)
  using engine = new Engine(model, { contextLength: 128, tokens: 128 * cases.length })
  const made = cases.map((): number[] => [])
  const rows = cases.map(({ prompt, answer }, i) => ({ ids: prompt, maxTokens: i < wholePrompts ? answer.length : 12 }))
  for await (const tokens of engine.run(rows))
    for (const [i, token] of tokens.entries()) if (token) made[i].push(token.id)
  for (const [i, { answer }] of cases.entries()) {
    const want = answer.slice(0, rows[i].maxTokens)
    expect(files.tokenizer.decode(made[i])).toBe(files.tokenizer.decode(want))
    expect(made[i]).toEqual(want)
  }
}

async function comparePerplexity(files: OpenModel, model: Decoder, name: string): Promise<void> {
  const golden = perplexities[name]
  const { context, group, llamaCpp, transformers } = golden
  const ids = files.tokenizer.encode(mobyDickText()).slice(0, golden.tokens)
  expect(createHash('sha256').update(Uint32Array.from(ids)).digest('hex')).toBe(golden.sha256)
  const [bosId] = golden.prefix
  expect(files.bosId).toBe(bosId)
  const { losses } = await measurePerplexity(model, ids.slice(0, measured), { context, bosId })
  if (measured === golden.tokens) expect(losses.length).toBe(golden.predicted)
  const ours = losses.reduce((sum, loss) => sum + loss, 0) / losses.length
  const ratio = (sums: readonly number[]) =>
    Math.exp(ours - sums.slice(0, measured / group).reduce((sum, loss) => sum + loss, 0) / losses.length)
  const ratios = {
    transformers: ratio(transformers.losses),
    'llama.cpp on the weights in f32': ratio(llamaCpp.writtenOut),
    'llama.cpp with OpenBLAS': ratio(llamaCpp.blas),
    'llama.cpp': ratio(llamaCpp.losses),
  }
  const shown = Object.entries(ratios).map(([program, r]) => `${(100 / r - 100).toFixed(4)} % more by ${program}`)
  console.log(`${name}: perplexity ${Math.exp(ours).toFixed(4)} of ${losses.length} tokens; ${shown.join(', ')}`)
  expect(Math.abs(ratios.transformers - 1)).toBeLessThan(5e-5)
  // ggml looks up Gemma's GELU in a table of f16.
  expect(Math.abs(ratios['llama.cpp on the weights in f32'] - 1)).toBeLessThan(3e-4)
  // On the file itself, its products in f32.
  expect(Math.abs(ratios['llama.cpp with OpenBLAS'] - 1)).toBeLessThan(0.002)
  // Without OpenBLAS llama.cpp rounds activations to 8 bits: 0.26 % and 0.33 % more perplexity over all tokens.
  expect(Math.abs(ratios['llama.cpp'] - 1)).toBeLessThan(measured === golden.tokens ? 0.005 : 0.02)
}
