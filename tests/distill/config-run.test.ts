import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import { agreement, prose } from '../../examples/distil-smollm2/make-data.ts'
import { parseRuntimeConfig } from '../../src/bundle/runtime-config.ts'
import { RuleError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { Capture } from '../../src/distill/capture-store.ts'
import { type DistillConfig, distillJsonSchema, parseDistillConfig } from '../../src/distill/config.ts'
import { configuredRun } from '../../src/distill/config-run.ts'
import type { DistilResult } from '../../src/distill/distil.ts'
import type { GateReport } from '../../src/distill/gate.ts'
import { type PipelineRequest, runGate, runOf, runPipeline } from '../../src/distill/pipeline.ts'
import { checkRun, planRun } from '../../src/distill/plan.ts'
import { controlNames, paths } from '../../src/distill/run.ts'
import { runReport } from '../../src/distill/run-report.ts'
import { architectureJsonSchema } from '../../src/distill/synthesize.ts'
import { type DecoderConfig, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { asciiAlphabet, characterTokenizer } from '../../src/formats/tokenizer.ts'
import { exists, readJson, writeJson } from '../../src/host/files.ts'
import { modelHash } from '../../src/models/model-hash.ts'
import { openModel } from '../../src/models/open-model.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import { Replays } from '../../src/train/replays.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { familyConfigs, writeFamilyFolder } from '../models/family-files.ts'

// The example of examples/distil-smollm2, scaled down: the same config with a small teacher of random weights.

const teacherConfig: DecoderConfig = {
  ...{ vocabularySize: 96, width: 96, layers: 4, heads: 6, kvHeads: 2, headSize: 16, ffnWidth: 160 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 128, tiedHead: true, eosId: 0 },
}

let folder: string
let teacher: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-distill-'))
  teacher = join(folder, 'model')
  await writeJson(join(teacher, 'config.json'), toHuggingFaceConfig(teacherConfig, 'float32'))
  await writeJson(join(teacher, 'tokenizer.json'), characterTokenizer(asciiAlphabet))
  await writeFile(
    join(teacher, 'model.safetensors'),
    writeSafetensors(randomTensors(teacherConfig, new Random(1), 0.15), { format: 'pt' }),
  )
  const { data, choices } = agreement(60, 24)
  const lines = (records: readonly object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('')
  await writeFile(join(folder, 'agreement.jsonl'), lines(data))
  await writeFile(join(folder, 'agreement-choices.jsonl'), lines(choices))
  const plain = prose()[0].text.replace(/[^ -~]/g, '')
  await writeFile(join(folder, 'prose.jsonl'), lines([{ text: plain.slice(0, 3000) }]))
})
afterAll(() => rm(folder, { recursive: true }))

/** The teacher as large ones are published: its tensors in three files, with an index. */
async function shardedTeacher(): Promise<string> {
  const path = join(folder, 'sharded')
  for (const name of ['config.json', 'tokenizer.json'])
    await writeJson(join(path, name), await readJson(join(teacher, name)))
  const { tensors } = parseSafetensors(new Uint8Array(await readFile(join(teacher, 'model.safetensors'))))
  const places: Record<string, string> = {}
  for (const shard of [0, 1, 2]) {
    const file = `model-0000${shard + 1}-of-00003.safetensors`
    const part = new Map([...tensors].filter((_, i) => i % 3 === shard))
    for (const name of part.keys()) places[name] = file
    await writeFile(join(path, file), writeSafetensors(part, { format: 'pt' }))
  }
  await writeJson(join(path, 'model.safetensors.index.json'), { metadata: {}, weight_map: places })
  return path
}

// On a machine that is shared a run of all stages takes its time.
vi.setConfig({ testTimeout: 150_000 })

/** The example's config, made small. */
async function smallConfig(out: string, changes: object = {}): Promise<DistillConfig> {
  const text = await readFile(join(import.meta.dirname, '../../examples/distil-smollm2/distil.yaml'), 'utf8')
  const example = parseDistillConfig('distil.yaml', parse(text))
  const small = {
    ...{ ...example, teacher, out, tokens: 48 },
    capabilities: example.capabilities.map((own) => ({
      ...own,
      data: own.data.replace('data/', ''),
      ...(own.choices && { choices: own.choices.replace('data/', '') }),
      ...{ rows: 10, stepRows: 2, mostItems: 12, heldOut: 0.2 },
    })),
    profile: { samples: 4, batch: 4, heldOutTokens: 96 },
    capture: { ...example.capture, topK: 4, anchorLayers: 2, anchorRank: 8, relationRank: 8, shardBytes: 12_000 },
    student: { layers: 3, ffnWidth: 80, adapterBudget: 0.05 },
    distil: {
      ...example.distil,
      adapterSteps: 1,
      jointSteps: 3,
      recoverySteps: 1,
      recoverEvery: 2,
      checkpointEvery: 2,
    },
    ...changes,
  }
  return parseDistillConfig('small.yaml', JSON.parse(JSON.stringify(small)))
}

const sumOf = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0)

async function requestOf(config: DistillConfig): Promise<PipelineRequest> {
  const configured = await configuredRun(config, join(folder, 'small.yaml'), async (name) => name)
  return {
    ...configured,
    ...{ toolVersion: '0.1.0', licence: 'none', gpu, onProgress: () => {} },
    runGate: async (path) => void (await runGate(path, gpu, () => {})),
  }
}

test('the example runs through all stages, with its controls, and again costs nothing', () =>
  withoutLeaks(async () => {
    const out = join(folder, 'run')
    const config = await smallConfig(out)
    const request = await requestOf(config)
    const records = await runPipeline(request)
    const where = paths(out, 'SmolLM2-135M-Instruct')
    expect(exists(join(out, 'teacher'))).toBe(false)
    const report = (await readJson(where.report)) as GateReport
    expect(report.parameters.backboneRatio).toBeLessThanOrEqual(0.7)
    expect(Object.keys(report.controls!)).toEqual([...controlNames])
    expect(report.capabilities.agreement.n).toBe(12)
    expect(Object.keys(report.capabilities.agreement.scores!.student)).toEqual(['acc', 'acc_norm'])
    const { lower, gain, upper } = report.controls!['random-init']!.prose
    expect(lower).toBeLessThanOrEqual(gain)
    expect(upper).toBeGreaterThanOrEqual(gain)
    const distilled = records.find(({ stage }) => stage === '4-distil')!.result as DistilResult
    expect(Object.keys(distilled.first).sort()).toEqual(
      ['activation', 'attention', 'output'].flatMap((term) => [`${term} agreement`, `${term} prose`]),
    )
    // Without anchors there is one term, and cross entropy is another one than the KL.
    expect(Object.keys(distilled.controls['no-anchors']!.first)).toEqual(['output agreement', 'output prose'])
    expect(distilled.controls['cross-entropy']!.first['output prose']).toBeGreaterThan(distilled.first['output prose'])
    expect(distilled.routers.oracle.accuracy).toBe(1)
    expect(distilled.routers.random.accuracy).toBe(0.5)
    for (const { bytesPerToken } of [
      records.find(({ stage }) => stage === '2b-capture')!.result as DistilResult & { bytesPerToken: number },
    ])
      expect(bytesPerToken).toBeLessThanOrEqual(300)
    const architecture = (await readJson(where.architecture)) as { ffn: { width: number; kept: number[] } }
    expect(architecture.ffn.width).toBe(80)
    expect(architecture.ffn.kept.every((share) => share > 0.5 && share <= 1)).toBe(true)

    const html = await runReport(out, 'SmolLM2-135M-Instruct')
    for (const words of [
      'The gate',
      'Controls',
      'random-init',
      'Routers',
      'what is kept at smaller ranks',
      'activation, by capability',
    ])
      expect(html).toContain(words)
    expect(html).not.toMatch(/(src|href)="http/)
    expect(await runPipeline(request)).toEqual(records)
  }))

test('replayed steps give the bytes of steps that are recorded each time', () =>
  withoutLeaks(async () => {
    const student = async (name: string) => {
      const out = join(folder, name)
      const changes = { controls: false, evaluation: { rankShares: [] } }
      const request = await requestOf(await smallConfig(out, changes))
      const runGate = () => Promise.reject(new Error('far enough'))
      await expect(runPipeline({ ...request, runGate })).rejects.toThrow('far enough')
      const where = paths(out, 'SmolLM2-135M-Instruct')
      const names = ['backbone', 'router', 'adapters/agreement', 'adapters/prose'].map((file) => `${file}.safetensors`)
      return Promise.all([where.log, ...names.map((file) => join(where.student, file))].map((path) => readFile(path)))
    }
    const replayed = await student('replayed')
    const { run } = Replays.prototype
    const keys: unknown[] = []
    const spy = vi.spyOn(Replays.prototype, 'run').mockImplementation(function (this: Replays, key, label, work) {
      keys.push(key)
      return run.call(this, undefined, label, work)
    })
    expect(await student('recorded')).toEqual(replayed)
    spy.mockRestore()
    expect(keys.length).toBeGreaterThan(4)
    expect(keys).not.toContain(undefined)
  }))

test('shards that are damaged or missing are named, and alone captured again; more rows are added behind', () =>
  withoutLeaks(async () => {
    const out = join(folder, 'shards')
    const request = await requestOf(await smallConfig(out, { controls: false }))
    const stop = new AbortController()
    // Stopped when training begins: the captures are there, nothing has read them.
    const first = runPipeline({
      ...{ ...request, signal: stop.signal },
      onProgress: ({ task }) => void (task === 'weigh hidden channels' && stop.abort()),
    })
    await expect(first).rejects.toThrow('Stopped')
    const where = paths(out, 'SmolLM2-135M-Instruct')
    const capture = where.capture('prose')
    const manifest = async () =>
      (await readJson(join(capture, 'manifest.json'))) as { shards: { file: string; rows: number; sha256: string }[] }
    const before = await manifest()
    expect(before.shards.length).toBeGreaterThan(2)
    const bytes = await Promise.all(before.shards.map(({ file }) => readFile(join(capture, file))))
    const damaged = Uint8Array.from(bytes[1])
    damaged[damaged.length - 1] ^= 1
    await writeFile(join(capture, before.shards[1].file), damaged)
    {
      await using open = await Capture.open(capture)
      await open.read([0])
      await expect(open.read([before.shards[0].rows])).rejects.toThrow(
        /shard-00001.safetensors: its sha256 is not the one that the manifest names. Run again .* its \d+ rows alone/,
      )
    }
    await rm(join(capture, before.shards[0].file))

    // The same run with more rows: two shards again, byte for byte, and new ones behind.
    const more = await smallConfig(out, { controls: false })
    const wider = { ...more, capabilities: more.capabilities.map((own) => ({ ...own, rows: 12 })) }
    await runPipeline(await requestOf(wider))
    const after = await manifest()
    expect(after.shards.slice(0, before.shards.length)).toEqual(before.shards)
    expect(after.shards.reduce((sum, { rows }) => sum + rows, 0)).toBe(12)
    for (const [i, { file }] of before.shards.entries()) expect(await readFile(join(capture, file))).toEqual(bytes[i])
    await using open = await Capture.open(capture)
    const [one, all] = [await open.read([11]), await open.read([3, 11])]
    for (const [name, { values }] of one.columns) {
      const both = all.columns.get(name)!.values
      expect(both.subarray(both.length / 2)).toEqual(values)
    }
  }))

test.each(['sampled', 'online'] as const)('targets %s train as well', (targets) =>
  withoutLeaks(async () => {
    const out = join(folder, targets)
    const [agreement, prose] = (await smallConfig(out)).capabilities
    const config = await smallConfig(out, {
      // A teacher in several files is the same teacher.
      ...{ controls: false, evaluation: { rankShares: [] }, teacher: await shardedTeacher() },
      capabilities: [{ ...agreement, restricted: true }, prose],
      capture: { ...(await smallConfig(out)).capture, targets, ...(targets === 'sampled' && { draws: 6 }) },
      distil: { ...(await smallConfig(out)).distil, reverseFrom: targets === 'sampled' ? 1 : 0.5 },
    })
    const records = await runPipeline(await requestOf(config))
    const { first, last } = records.find(({ stage }) => stage === '4-distil')!.result as DistilResult
    for (const value of [...Object.values(first), ...Object.values(last)]) expect(value).toBeGreaterThan(0)
    // What is restricted has no place in any router, and the bundle says so.
    const { routers } = records.find(({ stage }) => stage === '4-distil')!.result as DistilResult
    expect([routers.n, routers.random.accuracy]).toEqual([2, 1])
    const manifest = (await readJson(join(out, 'nexus_bundle_v1/manifest.json'))) as {
      capabilities: Record<string, { restricted: boolean }>
    }
    expect(Object.values(manifest.capabilities).map(({ restricted }) => restricted)).toEqual([true, false])
    const runtime = parseRuntimeConfig(await readFile(join(out, 'nexus_bundle_v1/config/runtime.yaml')))
    expect(runtime.router).toEqual({ kind: 'linear', capabilities: ['prose'] })
    await using whole = await openModel(teacher)
    expect(((await readJson(join(out, 'scope.lock.json'))) as { teacher: string }).teacher).toBe(await modelHash(whole))
    await using capture = await Capture.open(paths(out, 'SmolLM2-135M-Instruct').capture('prose'))
    expect(capture.has('top.ids')).toBe(targets === 'sampled')
    if (targets === 'sampled') {
      const { columns } = await capture.read([0])
      const [ids, shares] = [columns.get('top.ids')!.values, columns.get('top.probabilities')!.values]
      for (let t = 0; t < 48; t++) {
        expect(new Set(ids.subarray(6 * t, 6 * t + 6)).size).toBe(6)
        expect(sumOf(shares.subarray(6 * t, 6 * t + 6))).toBeCloseTo(1, 2)
      }
    }
  }),
)

test('a teacher of another vocabulary writes, and a pretrained student learns what it wrote', () =>
  withoutLeaks(async () => {
    const out = join(folder, 'text')
    // The same letters in another order are another vocabulary.
    const other = join(folder, 'student')
    const small = { ...teacherConfig, width: 64, heads: 4, layers: 3, ffnWidth: 96 }
    await writeJson(join(other, 'config.json'), toHuggingFaceConfig(small, 'float32'))
    await writeJson(
      join(other, 'tokenizer.json'),
      characterTokenizer(`${asciiAlphabet[0]}${[...asciiAlphabet.slice(1)].reverse().join('')}`),
    )
    const weights = randomTensors(small, new Random(9), 0.15)
    await writeFile(join(other, 'model.safetensors'), writeSafetensors(weights, { format: 'pt' }))
    const example = await smallConfig(out)
    const config = (changes: object) =>
      smallConfig(out, {
        ...{ controls: false, evaluation: { rankShares: [] }, capabilities: [{ ...example.capabilities[0], rows: 6 }] },
        student: { backbone: other, adapterBudget: 0.05 },
        ...changes,
      })
    await expect(requestOf(await config({}))).rejects.toThrow(/vocabularies differ. Give capture.targets text/)
    const capture = { ...example.capture, targets: 'text' }
    const prose = { capabilities: [{ ...example.capabilities[1] }] }
    await expect(requestOf(await config({ capture, ...prose }))).rejects.toThrow('Give it choices')
    const records = await runPipeline(await requestOf(await config({ capture })))
    const { first } = records.find(({ stage }) => stage === '4-distil')!.result as DistilResult
    expect(Object.keys(first)).toEqual(['output agreement'])
    const where = paths(out, 'SmolLM2-135M-Instruct')
    const lines = (await readFile(where.texts('agreement'), 'utf8')).trim().split('\n')
    expect(lines.length).toBe(6)
    for (const line of lines) expect(Object.keys(JSON.parse(line))).toEqual(['prompt', 'completion'])
    expect(((await readJson(where.report)) as GateReport).capabilities.agreement.n).toBe(12)
    await using kept = await Capture.open(where.capture('agreement'))
    expect(kept.layout.columns.map(({ name }) => name)).toEqual(['ids', 'weights'])
  }))

test('a plan says memory, disk and time without writing anything', () =>
  withoutLeaks(async () => {
    const out = join(folder, 'planned')
    const request = await requestOf(await smallConfig(out))
    const plan = await planRun(runOf(request), teacher)
    expect(plan.student.ratio).toBeLessThanOrEqual(0.7)
    expect(plan.training).toMatchObject({ steps: 4, tokensPerStep: 192, students: 5 })
    expect(plan.memory.peak).toBeGreaterThan(plan.memory.resident)
    expect(plan.seconds.distil).toBeGreaterThan(0)
    expect(exists(out)).toBe(false)
  }))

describe('a run that cannot go well is refused before it begins', () => {
  test('captures of more than 300 bytes a token', async () => {
    const small = await smallConfig(join(folder, 'large'))
    const config = { ...small, capture: { ...small.capture, topK: 60, anchorLayers: 3, anchorRank: 32 } }
    await expect(planRun(runOf(await requestOf(config)), teacher)).rejects.toThrow(RuleError)
    await expect(planRun(runOf(await requestOf(config)), teacher)).rejects.toThrow(
      /at most 300 bytes a token.*anchorLayers/,
    )
  })
  test('keys that are wrong, by their paths', () => {
    const config = {
      teacher: 't',
      out: 'o',
      student: { layer: 3 },
      capabilities: [{ name: 'A', data: 'x', rows: 1.5 }],
    }
    expect(() => parseDistillConfig('my.yaml', config)).toThrow(
      /Cannot read my.yaml:\n.*capabilities.0.name: must be small letters[\s\S]*capabilities.0.rows: [\s\S]*student: Unrecognized key: "layer"/,
    )
    const text = { teacher: 't', out: 'o', student: { layers: 3 }, capabilities: [{ name: 'a', data: 'x' }] }
    expect(() => parseDistillConfig('my.yaml', { ...text, capture: { targets: 'text' } })).toThrow(
      'capture.targets: text is for',
    )
  })
  test.each(['qwen2', 'qwen3', 'gemma3'] as const)('a student cut from a %s', async (family) => {
    const path = join(folder, family)
    writeFamilyFolder(path, familyConfigs[family])
    const request = await requestOf(await smallConfig(join(folder, 'other')))
    await expect(checkRun(runOf(request), path)).rejects.toThrow(
      new RegExp(`this ${family} needs what a plain decoder lacks: .*plain Llama decoders .*student.backbone`),
    )
  })
  test('a student that is too large, a line that is not JSON', async () => {
    const out = join(folder, 'refused')
    const config = await smallConfig(out, { student: { layers: 4, adapterBudget: 0.05 }, controls: false })
    await expect(runPipeline(await requestOf(config))).rejects.toThrow('at most 0.7 are allowed; lower student.layers')
    expect(exists(out)).toBe(false)
    await writeFile(join(folder, 'broken.jsonl'), '{"text":"good"}\n{"text":\n')
    const broken = { ...config, capabilities: [{ ...config.capabilities[1], data: 'broken.jsonl' }] }
    await expect(requestOf(broken)).rejects.toThrow('broken.jsonl:2: it is not JSON')
  })
})

test('the schemas in docs/ are those of the program', async () => {
  const docs = join(import.meta.dirname, '../../docs')
  expect(await readJson(join(docs, 'distill.schema.json'))).toEqual(distillJsonSchema())
  expect(await readJson(join(docs, 'student_arch.schema.json'))).toEqual(architectureJsonSchema())
})
