import { copyFile, cp, link, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { GpuError, RuleError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { buildTime } from '../host/build-time.ts'
import { exists, readJson, removeFolder, sha256, writeJson } from '../host/files.ts'
import { readProgram } from '../host/program.ts'
import { modelHash } from '../models/model-hash.ts'
import { openModel } from '../models/open-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Capability } from '../train/capability.ts'
import { captureStage, capturesAreWhole } from './capture.ts'
import { distilStage } from './distil.ts'
import { type GateReport, gateStage } from './gate.ts'
import { packStage } from './pack.ts'
import { checkRun } from './plan.ts'
import { profileStage } from './profile.ts'
import type { TeacherEntry } from './registry.ts'
import { type NiwtRun, type NiwtSettings, paths, runStages, type Stage, type StageRecord } from './run.ts'
import { type Contract, datasetHash, lockScope } from './scope.ts'
import { synthesizeStage } from './synthesize.ts'

/** What a NIWT run is asked to do. */
export interface PipelineRequest {
  /** Where everything is written. */
  readonly folder: string
  /** A Hugging Face folder or a GGUF file; it is only read. */
  readonly teacher: string
  /** What tokenizer.json of the student holds. */
  readonly tokenizerJson: object
  readonly capabilities: readonly Capability[]
  /** The same in the teacher's tokens, and the student's vocabulary, where the two differ. */
  readonly teacherCapabilities?: readonly Capability[]
  readonly student?: NiwtRun['student']
  readonly contracts: readonly Contract[]
  /** The registry; the first is the teacher of this run. */
  readonly teachers: readonly TeacherEntry[]
  readonly settings: NiwtSettings
  readonly seed: number
  readonly restricted?: readonly string[]
  readonly toolVersion: string
  readonly licence: string
  readonly gpu: Gpu
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
  /** Runs stage 5 in a process of its own; it leaves verify_report.json. */
  runGate(folder: string): Promise<void>
}

const requestFile = 'request.json'

/** The run that a request asks for. */
export function runOf(request: PipelineRequest): NiwtRun {
  const { folder, gpu, teacher, capabilities, contracts, settings, seed, onProgress, signal, restricted } = request
  return {
    ...{ folder, gpu, contracts, settings, seed, onProgress, teacherName: request.teachers[0].name },
    ...{ teacherFolder: workingCopy(folder, teacher), ...(signal && { signal }), ...(restricted && { restricted }) },
    capabilities: capabilities.filter(({ name }) => contracts.some(({ capability }) => capability === name)),
    ...(request.teacherCapabilities && { teacherCapabilities: request.teacherCapabilities }),
    ...(request.student && { student: request.student }),
  }
}

function workingCopy(folder: string, teacher: string): string {
  return join(folder, teacher.endsWith('.gguf') ? 'teacher.gguf' : 'teacher')
}

/** Starts or resumes a run: stages 0 to 6. @returns the records of all stages. */
export async function runPipeline(request: PipelineRequest): Promise<StageRecord[]> {
  const { folder, signal, teacher, settings, seed } = request
  const run = runOf(request)
  const { contracts } = run
  const where = paths(folder, run.teacherName)
  await checkRun(run, teacher)
  // More rows may be captured later; all else stays as it was when the run began.
  const { rows, ...capture } = settings.capture
  const lock = {
    contracts,
    datasets: Object.fromEntries(run.capabilities.map((capability) => [capability.name, datasetHash(capability)])),
    data: Object.fromEntries(run.capabilities.map(({ name, dataHash }) => [name, dataHash ?? 'made'])),
    teacher: await teacherHash(teacher),
    seed,
    settings: { ...settings, capture },
  }
  // Compared on every start, not only once: a change of scope stops the run.
  await lockScope(where.scopeLock, lock)
  for (const capability of run.capabilities) await writeItems(where.items(capability.name), capability)
  const saved: SavedRequest = {
    ...{ teacherName: run.teacherName, teacherFolder: run.teacherFolder.slice(folder.length + 1), seed, settings },
    ...{ contracts, ...(run.restricted && { restricted: run.restricted }) },
  }
  await writeJson(join(folder, requestFile), saved)
  await writeJson(join(folder, 'tokenizer.json'), request.tokenizerJson)

  const withTeacher = async <T>(work: () => Promise<T>): Promise<T> => {
    if (!exists(run.teacherFolder)) await copyTeacher(teacher, run.teacherFolder)
    return work()
  }
  const stages: Stage[] = [
    { name: '0-scope', work: async () => ({ contracts: contracts.length }) },
    { name: '1-registry', work: () => writeJson(where.registry, request.teachers) },
    { name: '2-profile', work: () => withTeacher(() => profileStage(run)) },
    {
      name: '2b-capture',
      inputs: JSON.stringify(rows),
      work: () => withTeacher(() => captureStage(run)),
      output: { readBy: '4-distil', isWhole: () => capturesAreWhole(run) },
    },
    {
      name: '3-synthesize',
      work: () => withTeacher(() => synthesizeStage(run)),
      output: { readBy: '4-distil', isWhole: async () => exists(where.initial) },
    },
    {
      name: '4-distil',
      work: () => (settings.capture.targets === 'online' ? withTeacher(() => distilStage(run)) : distilStage(run)),
    },
    {
      name: '5-gate',
      async work() {
        for (const path of [run.teacherFolder, `${run.teacherFolder}.part`, where.initial]) await removeFolder(path)
        await request.runGate(folder)
        if (!exists(where.report)) throw new GpuError('The gate ended without a report')
        return ((await readJson(where.report)) as GateReport).verdict
      },
    },
    {
      name: '6-pack',
      work: async () =>
        packStage(run, {
          toolVersion: request.toolVersion,
          timestamp: await buildTime(where.report),
          tokenizer: request.tokenizerJson,
          licence: request.licence,
          program: readProgram(),
          ...(run.restricted && { restricted: run.restricted }),
        }),
    },
  ]
  return runStages(folder, sha256(JSON.stringify(lock)), stages, signal)
}

async function teacherHash(path: string): Promise<string> {
  await using model = await openModel(path)
  return await modelHash(model)
}

/** A working copy: NIWT deletes it, and never touches the original. One file is linked where the disk allows. */
async function copyTeacher(from: string, to: string): Promise<void> {
  const part = `${to}.part`
  await removeFolder(part)
  if ((await stat(from)).isDirectory()) await cp(from, part, { recursive: true })
  else await link(from, part).catch(() => copyFile(from, part))
  await rename(part, to)
}

/** What the gate's own process reads: nothing of the teacher. */
interface SavedRequest {
  readonly teacherName: string
  readonly teacherFolder: string
  readonly seed: number
  readonly settings: NiwtSettings
  readonly contracts: NiwtRun['contracts']
  readonly restricted?: readonly string[]
}

const numbers = z.array(z.number())
const rowSchema = z.tuple([numbers, numbers])
const itemsSchema = z.object({
  name: z.string(),
  description: z.string(),
  metric: z.string(),
  unit: z.enum(['item', 'token']),
  chance: z.number(),
  example: z.object({ prompt: z.string(), answer: z.string().optional() }),
  items: z.array(rowSchema),
  choices: z
    .array(z.object({ rows: z.array(rowSchema), characters: numbers, answer: z.number().int().nonnegative() }))
    .optional(),
})

/** Held-out items as the gate's process reads them: as ids, so that it needs no tokenizer and no data file. */
async function writeItems(path: string, capability: Capability): Promise<void> {
  const { name, description, metric, unit, chance, example } = capability
  const plain = ({ ids, weights }: { ids: ArrayLike<number>; weights: ArrayLike<number> }) =>
    [Array.from(ids), Array.from(weights)] as [number[], number[]]
  const choices = capability.choices?.().map(({ rows, characters, answer }) => {
    return { rows: rows.map(plain), characters: [...characters], answer }
  })
  const facts = { name, description, metric, unit, chance, example }
  await writeJson(path, { ...facts, items: capability.items().map(plain), ...(choices && { choices }) })
}

async function readItems(path: string): Promise<Capability> {
  const result = itemsSchema.safeParse(await readJson(path))
  if (!result.success) throw new SyntaxError(`Cannot read ${path}: ${z.prettifyError(result.error)}`)
  const { items, choices, example, ...facts } = result.data
  const row = ([ids, weights]: [number[], number[]]) => ({ ids, weights })
  return {
    ...facts,
    example: { prompt: example.prompt, ...(example.answer !== undefined && { answer: example.answer }) },
    items: () => items.map(row),
    ...(choices && { choices: () => choices.map((choice) => ({ ...choice, rows: choice.rows.map(row) })) }),
    row() {
      throw new RuleError('the gate sees held-out items alone', `it asked for a training row of ${facts.name}`)
    },
  }
}

/**
 * Runs stage 5 of the run in `folder`, from its files alone.
 * @throws RuleError when the held-out items are not those that the run began with.
 */
export async function runGate(
  folder: string,
  gpu: Gpu,
  onProgress: OnProgress,
  signal?: AbortSignal,
): Promise<GateReport> {
  const { teacherFolder, ...saved } = (await readJson(join(folder, requestFile))) as SavedRequest
  const where = paths(folder, saved.teacherName)
  const lock = (await readJson(where.scopeLock)) as { datasets: Readonly<Record<string, string>> }
  const capabilities: Capability[] = []
  for (const { capability: name } of saved.contracts) {
    const capability = await readItems(where.items(name))
    if (datasetHash(capability) !== lock.datasets[name])
      throw new RuleError(
        'scope lock',
        `the held-out items of ${name} in ${where.items(name)} changed since the run began`,
      )
    capabilities.push(capability)
  }
  const run = { ...saved, folder, gpu, capabilities, onProgress, teacherFolder: join(folder, teacherFolder) }
  return gateStage({ ...run, ...(signal && { signal }) })
}
