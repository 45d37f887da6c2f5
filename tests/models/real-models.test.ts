import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cachePath } from '../../src/host/cache.ts'
import { Engine } from '../../src/inference/engine.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { openModel } from '../../src/models/open-model.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

// The golden continuations are transformers' on the same weights in f32 (tests/oracles/make-generations.py). The models
// are fetched by scripts/fetch-test-models.ts; without them these tests are skipped. NEXUS_GENERATIONS says how many
// prompts are compared over all their 64 tokens; one over its first dozen unless told.

interface Continuation {
  readonly prompt: number[]
  readonly answer: number[]
}

const golden = JSON.parse(
  readFileSync(join(import.meta.dirname, '../oracles/golden/generations.json'), 'utf8'),
) as Record<string, Continuation[]>
const folder = process.env.NEXUS_MODELS ?? cachePath('models')
const prompts = Number(process.env.NEXUS_GENERATIONS ?? 0)

for (const [name, cases] of Object.entries(golden)) {
  const path = join(folder, name)
  test.runIf(existsSync(path))(`${name}: greedy output equals transformers’`, { timeout: 1_800_000 }, () =>
    withoutLeaks(async () => {
      await using files = await openModel(path)
      using model = await Decoder.open(gpu, files.weights)
      using engine = new Engine(model, { contextLength: 128 })
      for (const { prompt, answer } of cases.slice(0, Math.max(1, prompts))) {
        const made: number[] = []
        for await (const [token] of engine.run([{ ids: prompt, maxTokens: prompts > 0 ? answer.length : 12 }]))
          made.push(token!.id)
        expect(files.tokenizer.decode(made)).toBe(files.tokenizer.decode(answer.slice(0, made.length)))
        expect(made).toEqual(answer.slice(0, made.length))
      }
    }),
  )
}
