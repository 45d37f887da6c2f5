import { mkdtemp, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { LinearRouter } from '../../src/adapters/linear-router.ts'
import { storages } from '../../src/bundle/manifest.ts'
import { parseRuntimeConfig } from '../../src/bundle/runtime-config.ts'
import { assertVerified } from '../../src/bundle/verify.ts'
import { Random } from '../../src/core/random.ts'
import { packStage } from '../../src/distill/pack.ts'
import { type NiwtRun, paths } from '../../src/distill/run.ts'
import { Student } from '../../src/distill/student.ts'
import { parameterCount, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import { buildTime } from '../../src/host/build-time.ts'
import { FolderFiles, readBytes, writeFileAtomic, writeJson } from '../../src/host/files.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { config } from '../bundle/tiny-bundle.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-pack-'))
})
afterAll(() => rm(folder, { recursive: true }))

const names = ['add', 'code']
const tokenizer = characterTokenizer(asciiAlphabet)

/** A run that has come as far as the gate. */
async function gatedRun(
  storage: (typeof storages)[number],
): Promise<{ run: NiwtRun; where: ReturnType<typeof paths> }> {
  const where = paths(join(folder, storage), 't')
  const ranks = { '0.self_attn.q_proj': 4 }
  const parameters = 4 * (16 + 16)
  const backboneParameters = parameterCount(config)
  await writeJson(where.architecture, {
    teacher: { name: 't', parameters: 2 * backboneParameters },
    backbone: toHuggingFaceConfig(config, 'float16'),
    backboneParameters,
    backboneRatio: 0.5,
    inherits: 'teacher',
    anchors: { kept: [0], outputs: [{ layer: 0, teacher: '0.output' }], query: '0.query' },
    adapters: Object.fromEntries(names.map((name) => [name, { ranks, parameters, ratio: 0.01 }])),
    router: { kind: 'prototypes', width: 16 },
  })
  const random = new Random(7)
  using student = new Student(
    Decoder.random(gpu, config, random, 0.3),
    new Map(names.map((name) => [name, Adapter.create(gpu, name, config, ranks, random)])),
  )
  await student.write(where, storage)
  // NF4 has the router of an older run, which knew prototypes alone.
  const router =
    storage === 'nf4'
      ? new Map([['prototypes', cpuTensor('F32', [2, 16], random.normals(32))]])
      : new LinearRouter(['add'], [Float64Array.from(random.normals(16))], Float64Array.of(1)).toTensors()
  await writeFileAtomic(join(where.student, 'router.safetensors'), writeSafetensors(router, { capabilities: 'x' }))
  const measured = { student: 0.9, ratio: 0.98, lower: 0.975, n: 1200, verdict: 'pass' }
  await writeJson(where.report, { capabilities: Object.fromEntries(names.map((name) => [name, measured])) })
  const capabilities = names.map((name) => ({ name, description: name, metric: 'm', example: { prompt: 'abc' } }))
  const settings = { student: { layers: 1, adapterBudget: 0.04, storage } }
  const run = { folder: join(folder, storage), gpu, teacherName: 't', capabilities, settings, seed: 42 }
  return { run: run as unknown as NiwtRun, where }
}

test.each(storages)('stage 6 packs in %s what the gate reads, twice the same', (storage) =>
  withoutLeaks(async () => {
    const { run, where } = await gatedRun(storage)
    const facts = async () => ({
      toolVersion: '0.1.0',
      timestamp: await buildTime(where.report),
      tokenizer,
      licence: 'MIT\n',
      restricted: ['code'],
    })
    const first = await packStage(run, await facts())
    const manifest = await readBytes(join(where.bundle, 'manifest.json'))
    expect(await packStage(run, await facts())).toEqual(first)
    expect(await readBytes(join(where.bundle, 'manifest.json'))).toEqual(manifest)

    const files = new FolderFiles(where.bundle)
    const report = await assertVerified(files)
    expect(report.manifest).toMatchObject({ model_metadata: { storage }, capabilities: { code: { restricted: true } } })
    expect(report.notes.join()).not.toContain('measured')
    const { router } = parseRuntimeConfig(await files.read('config/runtime.yaml'))
    expect(router).toEqual(
      storage === 'nf4' ? { kind: 'prototypes', capabilities: names } : { kind: 'linear', capabilities: ['add'] },
    )

    using gated = await Student.read(gpu, where, storage)
    using model = await NexusModel.load(files, { gpu })
    const ids = [config.eosId, ...loadTokenizer(tokenizer).encode('abc')]
    using step = gpu.step()
    const logits = await step.read(
      gated.backbone.forward(step, step.upload('u32', [1, ids.length], ids), { updates: gated.adapters.get('add')! }),
    )
    expect(await model.logits({ prompt: 'abc', capability: 'add' })).toEqual(logits.slice(-config.vocabularySize))
  }),
)

test('the time of building is SOURCE_DATE_EPOCH, or when the input was written', async () => {
  const input = join(folder, 'input')
  await writeFileAtomic(input, 'x')
  await utimes(input, 1e9, 1e9)
  const before = process.env.SOURCE_DATE_EPOCH
  try {
    delete process.env.SOURCE_DATE_EPOCH
    expect(await buildTime(input)).toBe('2001-09-09T01:46:40.000Z')
    process.env.SOURCE_DATE_EPOCH = '86400'
    expect(await buildTime(input)).toBe('1970-01-02T00:00:00.000Z')
    process.env.SOURCE_DATE_EPOCH = 'today'
    await expect(buildTime(input)).rejects.toThrow('must be a count of seconds')
  } finally {
    if (before === undefined) delete process.env.SOURCE_DATE_EPOCH
    else process.env.SOURCE_DATE_EPOCH = before
  }
})
