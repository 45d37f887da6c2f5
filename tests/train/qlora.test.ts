import { existsSync, readFileSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { finetune } from '../../src/train/finetune.ts'
import { FinetuneData } from '../../src/train/finetune-data.ts'
import { openBase, openRows } from '../../src/train/finetune-inputs.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { model, qloraRun, wholeSteps } from './qlora-case.ts'

// The golden curve is PyTorch's and PEFT's on bitsandbytes' NF4 (tests/oracles/make-qlora.py). The model is fetched by
// scripts/fetch-test-models.ts; without it this test is skipped. NEXUS_QLORA=100 compares all steps; three unless told.

interface Golden {
  readonly settings: object
  /** What each step learned from, padding too. */
  readonly ids: number[][]
  readonly losses: number[]
  readonly norms: number[]
}

const steps = Math.min(wholeSteps, Number(process.env.NEXUS_QLORA ?? 3))

test.runIf(existsSync(model))('QLoRA of SmolLM2 follows the loss of PyTorch and PEFT', { timeout: 1_800_000 }, () =>
  withoutLeaks(async () => {
    const path = join(import.meta.dirname, '../oracles/golden/qlora.json')
    const golden = JSON.parse(readFileSync(path, 'utf8')) as Golden
    const options = await qloraRun(gpu, steps)
    expect({ ...options.settings, steps: wholeSteps }).toMatchObject(golden.settings)
    {
      await using base = await openBase(options)
      await using rows = await openRows(options, base, new Date(0))
      const data = new FinetuneData(rows, options.settings)
      for (let index = 0; index < steps; index++)
        expect([...(await data.step(index)).parts[0].ids]).toEqual(golden.ids[index])
    }
    await finetune(options)
    const log = (await readFile(join(options.out, 'log.jsonl'), 'utf8')).trim().split('\n')
    const records = log.map((line) => JSON.parse(line) as { loss: number; gradientNorm: number })
    await rm(options.out, { recursive: true })
    const apart = records.map(({ loss }, i) => Math.abs(loss / golden.losses[i] - 1))
    const norms = records.map(({ gradientNorm }, i) => Math.abs(gradientNorm / golden.norms[i] - 1))
    console.log(`${steps} steps: loss within ${Math.max(...apart)}, gradient norm within ${Math.max(...norms)}`)
    expect(apart).toHaveLength(steps)
    expect(Math.max(...apart)).toBeLessThan(0.01)
    // Before rounding has had time to grow, every number of the gradient counts.
    expect(Math.max(...norms.slice(0, 3))).toBeLessThan(1e-3)
  }),
)
