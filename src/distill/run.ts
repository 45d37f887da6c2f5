import { join } from 'node:path'
import type { BundleStorage } from '../bundle/manifest.ts'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { exists, readJson, removeFolder, sha256, writeJson } from '../host/files.ts'
import type { WeightStorage } from '../models/decoder-weights.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Capability } from '../train/capability.ts'
import type { Contract } from './scope.ts'

/** Every number that a run can be tuned by. They are part of the scope lock. */
export interface NiwtSettings {
  /** Tokens of a row, in training and capture. */
  readonly tokens: number
  readonly profile: {
    /** Rows a capability. */
    readonly samples: number
    /** Rows a batch. */
    readonly batch: number
    /** How the teacher is held; NF4 unless told. */
    readonly storage?: WeightStorage
    /** What the PCAs may cost, as a share of the forward pass; 4 unless told, which takes every token of small models. */
    readonly share?: number
  }
  readonly capture: {
    /** Rows of the distillation set, by capability. */
    readonly rows: Readonly<Record<string, number>>
    /** Likeliest tokens kept of the teacher's distribution; all others are one tail. */
    readonly topK: number
    /** Components kept of each activation anchor. */
    readonly anchorRank: number
    /** Components kept of the query that the attention anchor compares. */
    readonly relationRank: number
  }
  readonly student: {
    /** Layers kept. */
    readonly layers: number
    /** Most parameters of one adapter, as a share of the teacher's. */
    readonly adapterBudget: number
    /** How the backbone's linear layers are packed, and so gated; f16 unless told. */
    readonly storage?: BundleStorage
  }
  readonly distil: {
    /** Steps of adapters alone, at the start. */
    readonly adapterSteps: number
    /** Steps of backbone and adapters together. */
    readonly jointSteps: number
    /** Steps of one adapter alone, for a capability that fell behind. */
    readonly recoverySteps: number
    /** Steps between checkpoints. */
    readonly checkpointEvery: number
    /** Rows a step, by capability. */
    readonly rows: Readonly<Record<string, number>>
    readonly backboneLr: number
    readonly adapterLr: number
    /** Weight of the activation anchor. */
    readonly alpha: number
    /** Weight of the attention anchor. */
    readonly beta: number
  }
}

/** One run of NIWT: a folder that holds all it writes, and what it works with. */
export interface NiwtRun {
  readonly folder: string
  readonly gpu: Gpu
  readonly teacherName: string
  /** The working copy of the teacher; the gate demands that it is gone. */
  readonly teacherFolder: string
  readonly capabilities: readonly Capability[]
  readonly contracts: readonly Contract[]
  readonly settings: NiwtSettings
  readonly seed: number
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** Where the stages of a run keep their files. */
export function paths(folder: string, teacher: string) {
  const profiles = join(folder, 'niwt_stage2_output', 'profiles', teacher)
  return {
    scopeLock: join(folder, 'scope.lock.json'),
    registry: join(folder, 'configs', 'teacher_registry.json'),
    profile: (capability: string) => join(profiles, capability),
    layers: join(profiles, 'layers.json'),
    capture: (capability: string) => join(folder, 'captures', `${capability}.safetensors`),
    baseline: join(folder, 'captures', 'baseline.json'),
    architecture: join(folder, 'configs', 'student_arch.json'),
    checkpoints: join(folder, 'checkpoints'),
    log: join(folder, 'distil_log.jsonl'),
    student: join(folder, 'student'),
    report: join(folder, 'verify_report.json'),
    bundle: join(folder, 'nexus_bundle_v1'),
    stage: (name: string) => join(folder, 'stages', `${name}.json`),
  }
}

/** One stage of NIWT. */
export interface Stage {
  /** `2-profile` */
  readonly name: string
  work(): Promise<unknown>
}

/** What a finished stage left in `stages/`. */
export interface StageRecord {
  readonly stage: string
  /** Hash of the scope and of all stages before; another one means that the stage must run again. */
  readonly chain: string
  readonly seconds: number
  readonly result: unknown
}

/** The names of the stages in their order. */
export const stageNames = [
  '0-scope',
  '1-registry',
  '2-profile',
  '2b-capture',
  '3-synthesize',
  '4-distil',
  '5-gate',
  '6-pack',
] as const

/**
 * Runs stages in order. One that finished before, with the same scope and the same stages before it, is not run again.
 * @param scope hash of what the run was asked to do.
 * @throws InterruptedError between two stages when the signal is aborted.
 */
export async function runStages(
  folder: string,
  scope: string,
  stages: readonly Stage[],
  signal?: AbortSignal,
): Promise<StageRecord[]> {
  let chain = scope
  const records: StageRecord[] = []
  for (const stage of stages) {
    if (signal?.aborted) throw new InterruptedError(`Stopped before stage ${stage.name}`)
    const path = join(folder, 'stages', `${stage.name}.json`)
    chain = sha256(`${chain}/${stage.name}`)
    const before = exists(path) ? ((await readJson(path)) as StageRecord) : undefined
    if (before?.chain === chain) {
      records.push(before)
      continue
    }
    await removeFolder(path)
    const started = performance.now()
    const result = (await stage.work()) ?? null
    const record = { stage: stage.name, chain, seconds: (performance.now() - started) / 1000, result }
    await writeJson(path, record)
    records.push(record)
  }
  return records
}
