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
    /** Tokens that the loss of a layer is measured on; 512 unless told. */
    readonly heldOutTokens?: number
  }
  readonly capture: {
    /** Rows of the distillation set, by capability. */
    readonly rows: Readonly<Record<string, number>>
    /** Likeliest tokens kept of the teacher's distribution; all others are one tail. */
    readonly topK: number
    /**
     * What is kept of the teacher's distribution: the likeliest tokens with a tail, tokens drawn from it, or nothing, where
     * the teacher stands beside the student ('online') or speaks another vocabulary ('text'). top-k unless told.
     */
    readonly targets?: 'top-k' | 'sampled' | 'online' | 'text'
    /** Tokens drawn where targets are sampled; 12 unless told. */
    readonly draws?: number
    /** How the teacher's linear layers are held; f32 unless told. */
    readonly storage?: WeightStorage
    /** Rows the teacher is run on at once; 40 unless told. */
    readonly batch?: number
    /** Most bytes of a shard; 8 MiB unless told. */
    readonly shardBytes?: number
    /** Layers whose output is anchored; all that are kept unless told. */
    readonly anchorLayers?: number
    /** Components kept of each activation anchor. */
    readonly anchorRank: number
    /** Components kept of the query that the attention anchor compares. */
    readonly relationRank: number
  }
  readonly student: {
    /** Layers kept. */
    readonly layers: number
    /** Hidden channels kept of each FFN; the teacher's unless told. */
    readonly ffnWidth?: number
    /** Another pretrained model to begin with, instead of the teacher's layers: a folder or a GGUF file. */
    readonly backbone?: string
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
    /** Share of the steps after which the output's KL is reverse; 1, never, unless told. */
    readonly reverseFrom?: number
    /** Tokens of a prompt that the router is fitted on; 8 unless told. */
    readonly promptTokens?: number
    /** Steps between recovery checks; only at the end unless told. */
    readonly recoverEvery?: number
    /** Whether layers are computed again in the backward pass, to save memory; not with anchors. */
    readonly gradientCheckpoint?: boolean
    /** Whether the embedding, and a head tied to it, stay as the teacher's; they are trained unless told. */
    readonly freezeEmbedding?: boolean
    /** Steps of the rise of the backbone's learning rate; 10 unless told. */
    readonly warmup?: number
    /** Bits of the optimiser's moments; 32 unless told. */
    readonly stateBits?: 8 | 32
  }
  readonly evaluation?: {
    /** Items a batch; 120 unless told. */
    readonly batch?: number
    /** Shares of their ranks to which adapters are cut and scored again, for the curve of rank against retention. */
    readonly rankShares?: readonly number[]
  }
  /** Runs that the student is compared with, each trained as long on as much; none unless told. */
  readonly controls?: readonly ControlName[]
}

/** What a control leaves out: the teacher's distribution and activations, anchors, ranks by the profile, inherited weights. */
export const controlNames = ['cross-entropy', 'no-anchors', 'uniform-rank', 'random-init'] as const

/** Name of a control. */
export type ControlName = (typeof controlNames)[number]

/** One run of NIWT: a folder that holds all it writes, and what it works with. */
export interface NiwtRun {
  readonly folder: string
  readonly gpu: Gpu
  readonly teacherName: string
  /** The working copy of the teacher, a folder or a GGUF file; the gate demands that it is gone. */
  readonly teacherFolder: string
  readonly capabilities: readonly Capability[]
  readonly contracts: readonly Contract[]
  readonly settings: NiwtSettings
  readonly seed: number
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
  /** The capabilities in the teacher's tokens, where its vocabulary is another one. */
  readonly teacherCapabilities?: readonly Capability[]
  /** The student's vocabulary, where it is not the teacher's: its size, and the sha256 of its tokenizer. */
  readonly student?: { readonly vocabularySize: number; readonly tokenizer: string }
  /** Capabilities that the router never chooses. */
  readonly restricted?: readonly string[]
}

/** Where a student and its training are kept: the one of the run, or one of its controls. */
export interface StudentPaths {
  readonly checkpoints: string
  readonly log: string
  /** Seconds and memory of each step. */
  readonly times: string
  readonly student: string
}

function studentPaths(folder: string): StudentPaths {
  return {
    checkpoints: join(folder, 'checkpoints'),
    log: join(folder, 'distil_log.jsonl'),
    times: join(folder, 'distil_times.jsonl'),
    student: join(folder, 'student'),
  }
}

/** Where the stages of a run keep their files. */
export function paths(folder: string, teacher: string) {
  const profiles = join(folder, 'niwt_stage2_output', 'profiles', teacher)
  return {
    scopeLock: join(folder, 'scope.lock.json'),
    registry: join(folder, 'configs', 'teacher_registry.json'),
    profile: (capability: string) => join(profiles, capability),
    layers: join(profiles, 'layers.json'),
    capture: (capability: string) => join(folder, 'captures', capability),
    baseline: join(folder, 'captures', 'baseline.json'),
    texts: (capability: string) => join(folder, 'texts', `${capability}.jsonl`),
    items: (capability: string) => join(folder, 'items', `${capability}.json`),
    architecture: join(folder, 'configs', 'student_arch.json'),
    /** The student's first weights. */
    initial: join(folder, 'student', 'initial.safetensors'),
    ...studentPaths(folder),
    control: (name: ControlName) => studentPaths(join(folder, 'controls', name)),
    measured: (task: string) => join(folder, 'gate', `${task.replace(/[^a-z0-9]+/g, '-')}.json`),
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
  /** What the stage depends on beside the scope and the stages before; another one means that it must run again. */
  readonly inputs?: string
  /** What it wrote is looked at again until the stage that reads it is done. */
  readonly output?: { readonly readBy: string; isWhole(): Promise<boolean> }
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
  const records: StageRecord[] = []
  let chain = scope
  const chains = stages.map(({ name, inputs = '' }) => {
    chain = sha256(`${chain}/${name}${inputs && `/${inputs}`}`)
    return chain
  })
  const pathOf = (name: string) => join(folder, 'stages', `${name}.json`)
  const done = async (name: string): Promise<StageRecord | undefined> => {
    const before = exists(pathOf(name)) ? ((await readJson(pathOf(name))) as StageRecord) : undefined
    return before?.chain === chains[stages.findIndex((stage) => stage.name === name)] ? before : undefined
  }
  for (const [i, stage] of stages.entries()) {
    if (signal?.aborted) throw new InterruptedError(`Stopped before stage ${stage.name}`)
    const path = pathOf(stage.name)
    const before = await done(stage.name)
    const { output } = stage
    if (before && (!output || (await done(output.readBy)) || (await output.isWhole()))) {
      records.push(before)
      continue
    }
    await removeFolder(path)
    const started = performance.now()
    const result = (await stage.work()) ?? null
    const record = { stage: stage.name, chain: chains[i], seconds: (performance.now() - started) / 1000, result }
    await writeJson(path, record)
    records.push(record)
  }
  return records
}
