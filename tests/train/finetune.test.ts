import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { InterruptedError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { type DecoderConfig, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { readPeft } from '../../src/formats/peft.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { asciiAlphabet, characterTokenizer } from '../../src/formats/tokenizer.ts'
import { writeJson } from '../../src/host/files.ts'
import { randomTensors } from '../../src/models/decoder.ts'
import { finetune } from '../../src/train/finetune.ts'
import { planFinetune } from '../../src/train/finetune-plan.ts'
import { type FinetuneSettings, finetuneDefaults } from '../../src/train/finetune-settings.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const config: DecoderConfig = {
  ...{ vocabularySize: 96, width: 32, layers: 2, heads: 2, kvHeads: 1, headSize: 16, ffnWidth: 64 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 128, tiedHead: true, eosId: 0 },
}

let folder: string
let model: string
let data: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-finetune-'))
  model = join(folder, 'model')
  await writeJson(join(model, 'config.json'), toHuggingFaceConfig(config, 'float32'))
  await writeJson(join(model, 'tokenizer.json'), characterTokenizer(asciiAlphabet))
  const template =
    '{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}'
  await writeJson(join(model, 'tokenizer_config.json'), { eos_token: '\n', chat_template: template })
  await writeFile(
    join(model, 'model.safetensors'),
    writeSafetensors(randomTensors(config, new Random(1), 0.15), { format: 'pt' }),
  )
  data = join(folder, 'data.jsonl')
  const random = new Random(2)
  const lines = Array.from({ length: 120 }, (_, i) => {
    const letter = String.fromCharCode(97 + random.integer(4))
    const answer = letter.repeat(3 + random.integer(8))
    return i % 2 === 0
      ? { prompt: `${letter}>`, completion: answer }
      : {
          messages: [
            { role: 'user', content: letter },
            { role: 'assistant', content: answer },
          ],
        }
  })
  await writeFile(data, `${lines.map((line) => JSON.stringify(line)).join('\n')}\n`)
})
afterAll(() => rm(folder, { recursive: true }))

const settings: FinetuneSettings = {
  ...finetuneDefaults,
  ...{ rank: 4, alpha: 8, lr: 0.02, batch: 2, length: 32, steps: 12, evalEvery: 5, evalShare: 0.1, checkpointEvery: 4 },
}
const run = (
  out: string,
  change: Partial<FinetuneSettings> = {},
  more: { signal?: AbortSignal; fresh?: boolean } = {},
) =>
  finetune({
    gpu,
    model,
    data,
    out: join(folder, out),
    settings: { ...settings, ...change },
    onProgress: () => {},
    ...more,
  })
const read = (out: string, name = 'adapter_model.safetensors') => readFile(join(folder, out, name))

test(
  'the loss falls, and PEFT files are written with the scale in them',
  () =>
    withoutLeaks(async () => {
      const result = await run('plain')
      expect(result.steps).toBe(12)
      expect(result.last).toBeLessThan(0.6 * result.first)
      expect(result.evaluation).toBeLessThan(result.first)
      const { tensors } = parseSafetensors(await read('plain'))
      const modules = readPeft(JSON.parse((await read('plain', 'adapter_config.json')).toString()), tensors)
      expect(modules).toHaveLength(14)
      expect(modules.every(({ scale, rank }) => scale === 1 && rank === 4)).toBe(true)
      const log = (await read('plain', 'log.jsonl')).toString().trim().split('\n')
      const lines = log.map((line) => JSON.parse(line) as { step: number; evaluation?: number })
      expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, step) => step))
      expect(lines.filter(({ evaluation }) => evaluation !== undefined).map(({ step }) => step)).toEqual([4, 9, 11])
    }),
  180_000,
)

test(
  'a run that is stopped twice ends byte for byte as one that is not, with parts, packing and 8-bit states or without',
  () =>
    withoutLeaks(async () => {
      const variants: Record<string, Partial<FinetuneSettings>> = {
        packed: { accumulate: 2, steps: 7, targets: ['q_proj', 'down_proj'] },
        nf4: {
          packing: false,
          steps: 7,
          base: 'nf4',
          gradientCheckpoint: true,
          stateBits: 8,
          rank: 32,
          schedule: 'stable',
        },
      }
      for (const [name, change] of Object.entries(variants)) {
        await run(`${name} whole`, change)
        for (const stopAt of [2, 5]) {
          const controller = new AbortController()
          const stopped = finetune({
            ...{ gpu, model, data, out: join(folder, `${name} cut`), settings: { ...settings, ...change } },
            onProgress: ({ task, done }) => void (task === 'finetune' && done === stopAt && controller.abort()),
            signal: controller.signal,
          })
          await expect(stopped).rejects.toThrow(InterruptedError)
        }
        await run(`${name} cut`, change)
        for (const file of ['adapter_model.safetensors', 'log.jsonl'])
          expect((await read(`${name} cut`, file)).equals(await read(`${name} whole`, file)), `${name} ${file}`).toBe(
            true,
          )
      }
    }),
  180_000,
)

test('other settings in the same folder are refused by name, and --fresh starts over', async () => {
  await run('again', { steps: 2 })
  await expect(run('again', { steps: 2, lr: 0.5 })).rejects.toThrow('lr was 0.02 and is now 0.5')
  expect((await run('again', { steps: 1, lr: 0.5 }, { fresh: true })).steps).toBe(1)
  await expect(run('wide', { length: 4000 })).rejects.toThrow("the model's context is 128")
  await expect(run('none', { targets: ['x_proj'] })).rejects.toThrow('linear layers are q_proj')
}, 180_000)

test('a run does not go on with another model of the same shape', async () => {
  await run('first', { steps: 1 })
  const path = join(model, 'model.safetensors')
  const before = await readFile(path)
  try {
    await writeFile(path, writeSafetensors(randomTensors(config, new Random(9), 0.15), { format: 'pt' }))
    await expect(run('first', { steps: 1 })).rejects.toThrow(
      'the hash of the base model (configuration and weights) was',
    )
  } finally {
    await writeFile(path, before)
  }
}, 180_000)

test('evaluations that do not improve stop the run, and the best adapter is written', async () => {
  // Too small a rate to change anything: every evaluation after the first is as good as it.
  const result = await run('patient', { lr: 1e-30, steps: 40, evalEvery: 1, patience: 2 })
  expect(result).toMatchObject({ steps: 3, written: 1 })
}, 180_000)

test(
  'the plan counts rows, tokens, memory and time, and leaves no run behind',
  () =>
    withoutLeaks(async () => {
      const options = { gpu, model, data, settings: { ...settings, steps: 0, epochs: 2 }, onProgress: () => {} }
      const plan = await planFinetune({ ...options, out: join(folder, 'plan') })
      expect(plan.rows).toEqual({ train: 108, eval: 12 })
      expect(plan.parameters).toBe(2 * 4 * (32 + 32 + 2 * (32 + 16) + 32 + 32 + 3 * (32 + 64)))
      expect(plan.passBytes).toBeGreaterThan(0)
      expect(plan.secondsPerStep).toBeGreaterThan(0)
      const checkpointed = await planFinetune({
        ...{ ...options, out: join(folder, 'plan') },
        settings: { ...options.settings, gradientCheckpoint: true },
      })
      expect(checkpointed.passBytes).toBeLessThan(plan.passBytes)
      await expect(read('plan', 'finetune.json')).rejects.toThrow('ENOENT')
    }),
  180_000,
)

test('a gradient that is not finite names the step and the lines that it came from', async () => {
  const broken = join(folder, 'broken')
  const tensors = randomTensors(config, new Random(1), 0.15)
  tensors.get('model.norm.weight')!.data.set(new Uint8Array(Float32Array.of(Number.NaN).buffer))
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json'])
    await writeJson(join(broken, name), JSON.parse(await readFile(join(model, name), 'utf8')))
  await writeFile(join(broken, 'model.safetensors'), writeSafetensors(tensors, { format: 'pt' }))
  const fault = await finetune({
    ...{ gpu, model: broken, data, out: join(folder, 'nan'), onProgress: () => {} },
    settings: { ...settings, packing: false },
  }).catch((error: unknown) => error)
  expect((fault as Error).message).toMatch(
    /^The loss of finetune is NaN at step 0 \(loss NaN\), first in the term loss; it learned from data\.jsonl:\d+, data\.jsonl:\d+: lower/,
  )
}, 180_000)

test('a row whose loss is not finite is named alone, and the checkpoint before it is kept', async () => {
  const torn = join(folder, 'torn')
  const untied = { ...config, tiedHead: false }
  const tensors = randomTensors(untied, new Random(1), 0.15)
  const embedding = tensors.get('model.embed_tokens.weight')!
  const { model: bpe } = JSON.parse(await readFile(join(model, 'tokenizer.json'), 'utf8')) as {
    model: { vocab: Record<string, number> }
  }
  embedding.data.set(new Uint8Array(Float32Array.of(Number.NaN).buffer), 4 * bpe.vocab.z * config.width)
  await writeJson(join(torn, 'config.json'), toHuggingFaceConfig(untied, 'float32'))
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    await writeJson(join(torn, name), JSON.parse(await readFile(join(model, name), 'utf8')))
  await writeFile(join(torn, 'model.safetensors'), writeSafetensors(tensors, { format: 'pt' }))
  const texts = ['aaaa', 'bbbb', 'cccc', 'dddd', 'azza', 'eeee']
  const path = join(folder, 'rows.jsonl')
  await writeFile(path, texts.map((text) => JSON.stringify({ text })).join('\n'))
  const train = (out: string, change: Partial<FinetuneSettings>) =>
    finetune({
      ...{ gpu, model: torn, data: path, out: join(folder, out), onProgress: () => {} },
      settings: { ...settings, packing: false, evalShare: 0, ...change },
    }).then(
      () => '',
      (error: Error) => error.message,
    )
  const alone = await train('torn alone', { batch: 1, steps: 6, checkpointEvery: 1, seed: 6 })
  expect(alone).toMatch(/^The loss of finetune is NaN at step [1-5] .*; it learned from rows\.jsonl:5: lower/)
  expect(alone).toContain(`The checkpoint of step ${/at step (\d)/.exec(alone)![1]} is kept`)
  expect(await train('torn parts', { batch: 2, accumulate: 3, steps: 1 })).toContain('from rows.jsonl:5: lower')
}, 180_000)

test(
  'activations in f16 learn as those in f32 do, over bases of every kind',
  () =>
    withoutLeaks(async () => {
      if (!gpu.capabilities.f16) return
      const log = async (out: string) =>
        (await read(out, 'log.jsonl'))
          .toString()
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as { loss: number; gradientNorm: number })
      for (const base of ['f32', 'nf4'] as const) {
        const common = { base, steps: 10, accumulate: 2, gradientCheckpoint: base === 'nf4' }
        await run(`${base} full`, common)
        await run(`${base} half`, { ...common, precision: 'f16' })
        const [full, half] = [await log(`${base} full`), await log(`${base} half`)]
        for (const [i, { loss }] of half.entries())
          expect(Math.abs(loss / full[i].loss - 1), `${base} ${i}`).toBeLessThan(0.02)
        expect(Math.abs(half[0].gradientNorm / full[0].gradientNorm - 1), base).toBeLessThan(0.01)
        expect(half.at(-1)!.loss).toBeLessThan(0.7 * half[0].loss)
      }
      // Parameters stay f32: in f16 a rate this small would change nothing.
      await run('slow', { precision: 'f16', lr: 1e-6, steps: 2, targets: ['q_proj'] })
      const { tensors } = parseSafetensors(await read('slow'))
      const b = [...tensors].find(([name]) => name.includes('lora_B'))![1]
      const largest = Math.max(...toFloat32(b).map(Math.abs))
      expect(largest).toBeGreaterThan(0)
      expect(largest).toBeLessThan(1e-4)
    }),
  180_000,
)

test.each<Partial<FinetuneSettings>>([
  {},
  { gradientCheckpoint: true, stateBits: 8, rank: 32, alpha: 32 },
  { base: 'nf4', batch: 4 },
  { base: 'nf4', batch: 4, accumulate: 2, gradientCheckpoint: true, precision: 'f16' },
  { accumulate: 3, packing: false },
])(
  'a run takes the memory of its plan: %o',
  (change) =>
    withoutLeaks(async () => {
      if (change.precision === 'f16' && !gpu.capabilities.f16) return
      const out = `memory ${JSON.stringify(change).replaceAll(/\W/g, ' ')}`
      const wide = { length: 128, steps: 4, evalEvery: 2, ...change }
      const before = gpu.memory.liveBytes
      const plan = await planFinetune({
        ...{ gpu, model, data, out: join(folder, out), settings: { ...settings, ...wide }, onProgress: () => {} },
      })
      const peak = gpu.watchPeak()
      await run(out, wide)
      const used = peak() - before
      const planned = plan.residentBytes + plan.passBytes - before
      expect(Math.abs(used / planned - 1), `${used} of ${planned}`).toBeLessThan(0.1)
    }),
  180_000,
)
