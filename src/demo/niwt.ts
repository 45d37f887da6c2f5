import { cp, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { GpuError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { captureStage } from '../distill/capture.ts'
import { distilStage } from '../distill/distil.ts'
import { type GateReport, gateStage } from '../distill/gate.ts'
import { packStage } from '../distill/pack.ts'
import { profileStage } from '../distill/profile.ts'
import { parseRegistry } from '../distill/registry.ts'
import { type NiwtRun, type NiwtSettings, paths, runStages, type Stage, type StageRecord } from '../distill/run.ts'
import { datasetHash, lockScope, parseContracts } from '../distill/scope.ts'
import { synthesizeStage } from '../distill/synthesize.ts'
import { loadTokenizer } from '../formats/tokenizer.ts'
import { buildTime } from '../host/build-time.ts'
import { exists, readBytes, readJson, removeFolder, sha256, writeJson } from '../host/files.ts'
import { readProgram } from '../host/program.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { tinyCapabilities } from './capabilities.ts'

/** What a NIWT run of built-in capabilities is asked to do. */
export interface NiwtRequest {
  /** Where everything is written. */
  readonly folder: string
  /** A Hugging Face folder of a model with the vocabulary of single characters. */
  readonly teacher: string
  /** retention_contracts.md */
  readonly contracts: string
  /** ModelName-Parameters-Category-BestFeature.csv */
  readonly registry: string
  readonly settings: NiwtSettings
  readonly seed: number
  readonly toolVersion: string
  readonly licence: string
  readonly gpu: Gpu
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
  /** Runs stage 5 in a process of its own; it leaves verify_report.json. */
  runGate(folder: string): Promise<void>
}

const requestFile = 'request.json'
const teacherCopy = 'teacher'

/** Starts or resumes a run: stages 0 to 6. @returns the records of all stages. */
export async function runNiwt(request: NiwtRequest): Promise<StageRecord[]> {
  const { folder, signal } = request
  const weights = await readBytes(join(request.teacher, 'model.safetensors'))
  const tokenizerJson = (await readJson(join(request.teacher, 'tokenizer.json'))) as object
  const capabilities = tinyCapabilities(loadTokenizer(tokenizerJson))
  const contracts = parseContracts(
    await readFile(request.contracts, 'utf8'),
    capabilities.map(({ name }) => name),
  )
  const teachers = parseRegistry(await readFile(request.registry, 'utf8'))
  const wanted = capabilities.filter(({ name }) => contracts.some(({ capability }) => capability === name))
  const run: NiwtRun = {
    folder,
    gpu: request.gpu,
    teacherName: teachers[0].name,
    teacherFolder: join(folder, teacherCopy),
    capabilities: wanted,
    contracts,
    settings: request.settings,
    seed: request.seed,
    onProgress: request.onProgress,
    signal,
  }
  const where = paths(folder, run.teacherName)
  const lock = {
    contracts,
    datasets: Object.fromEntries(wanted.map((capability) => [capability.name, datasetHash(capability)])),
    teacher: sha256(weights),
    seed: request.seed,
    settings: request.settings,
  }
  // Compared on every start, not only once: a change of scope stops the run.
  await lockScope(where.scopeLock, lock)
  const saved: SavedRequest = {
    teacherName: run.teacherName,
    seed: request.seed,
    settings: request.settings,
    contracts,
  }
  await writeJson(join(folder, requestFile), saved)
  await writeJson(join(folder, 'tokenizer.json'), tokenizerJson)

  const withTeacher = async <T>(work: () => Promise<T>): Promise<T> => {
    // A working copy: NIWT deletes it, and never touches the original.
    if (!exists(run.teacherFolder)) {
      const part = `${run.teacherFolder}.part`
      await removeFolder(part)
      await cp(request.teacher, part, { recursive: true })
      await rename(part, run.teacherFolder)
    }
    return work()
  }
  const stages: Stage[] = [
    { name: '0-scope', work: async () => ({ contracts: contracts.length }) },
    { name: '1-registry', work: () => writeJson(where.registry, teachers) },
    { name: '2-profile', work: () => withTeacher(() => profileStage(run)) },
    { name: '2b-capture', work: () => withTeacher(() => captureStage(run)) },
    { name: '3-synthesize', work: () => withTeacher(() => synthesizeStage(run)) },
    { name: '4-distil', work: () => withTeacher(() => distilStage(run)) },
    {
      name: '5-gate',
      async work() {
        await removeFolder(run.teacherFolder)
        await removeFolder(`${run.teacherFolder}.part`)
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
          tokenizer: tokenizerJson,
          licence: request.licence,
          program: readProgram(),
        }),
    },
  ]
  return runStages(folder, sha256(JSON.stringify(lock)), stages, signal)
}

/** What the gate's own process reads: nothing of the teacher. */
interface SavedRequest {
  readonly teacherName: string
  readonly seed: number
  readonly settings: NiwtSettings
  readonly contracts: NiwtRun['contracts']
}

/** Runs stage 5 of the run in `folder`, from its files alone. */
export async function runGate(
  folder: string,
  gpu: Gpu,
  onProgress: OnProgress,
  signal?: AbortSignal,
): Promise<GateReport> {
  const saved = (await readJson(join(folder, requestFile))) as SavedRequest
  const tokenizer = loadTokenizer((await readJson(join(folder, 'tokenizer.json'))) as object)
  const names = saved.contracts.map(({ capability }) => capability)
  return gateStage({
    ...saved,
    folder,
    gpu,
    teacherFolder: join(folder, teacherCopy),
    capabilities: tinyCapabilities(tokenizer).filter(({ name }) => names.includes(name)),
    onProgress,
    signal,
  })
}
