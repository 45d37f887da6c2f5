import { Adapter } from '../adapters/adapter.ts'
import { InterruptedError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { readBytes, readJson, removeFolder, sha256, writeFileAtomic } from '../host/files.ts'
import { add } from '../kernels/add.ts'
import { Decoder } from '../models/decoder.ts'
import { openModel } from '../models/open-model.ts'
import { randomTensors } from '../models/random-tensors.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { CheckpointStore } from '../train/checkpoint-store.ts'
import { type StepRecord, trainLoop } from '../train/loop.ts'
import { Optimiser } from '../train/optimiser.ts'
import { Replays } from '../train/replays.ts'
import { linearSchedule } from '../train/schedule.ts'
import { TrainLog } from '../train/train-log.ts'
import { recover } from './recover.ts'
import { fitRouter, type RouterScores } from './router.ts'
import { type ControlName, type NiwtRun, paths } from './run.ts'
import { Student } from './student.ts'
import { readArchitecture, type StudentArchitecture, uniformRanks } from './synthesize.ts'
import { Workbench, weigh } from './workbench.ts'

/** What training one student reports. */
export interface TrainResult {
  readonly steps: number
  /** Each term of the loss at the first and at the last step, by `term capability`. */
  readonly first: Readonly<Record<string, number>>
  readonly last: Readonly<Record<string, number>>
  /** Capabilities whose adapter was trained further because they fell behind. */
  readonly recovered: readonly string[]
}

/** What stage 4 reports. */
export interface DistilResult extends TrainResult {
  /** Share of prompts that the packed router sends to the right adapter, on captured rows kept back from training. */
  readonly routerAccuracy: number
  /** Every router beside the oracle and chance. */
  readonly routers: RouterScores
  readonly controls: Readonly<Partial<Record<ControlName, TrainResult>>>
}

/**
 * Stage 4: adapters first, then backbone and adapters together, on captured targets alone; recovery of capabilities that
 * fall behind, on a schedule and at the end; the router; and the controls, each as long on as much. Checkpoints let a stopped
 * run go on.
 */
export async function distilStage(run: NiwtRun): Promise<DistilResult> {
  const where = paths(run.folder, run.teacherName)
  const { architecture } = await readArchitecture(where.architecture)
  const main = await trainStudent(run, architecture)
  const routers = await routersOf(run, architecture)
  const controls: Partial<Record<ControlName, TrainResult>> = {}
  for (const control of run.settings.controls ?? []) controls[control] = await trainStudent(run, architecture, control)
  return { ...main, routerAccuracy: routers.trained.accuracy, routers, controls }
}

async function routersOf(run: NiwtRun, architecture: StudentArchitecture): Promise<RouterScores> {
  const where = paths(run.folder, run.teacherName)
  using student = await Student.read(run.gpu, where, run.settings.student.storage)
  await using bench = await Workbench.open(run, student, architecture)
  const { capabilities, tensors, scores } = await fitRouter(bench)
  const metadata = { kind: 'linear', capabilities: JSON.stringify(capabilities) }
  await writeFileAtomic(`${where.student}/router.safetensors`, writeSafetensors(tensors, metadata))
  return scores
}

/** Trains the student of the run, or that of a control, and writes it as it will be packed. */
async function trainStudent(
  run: NiwtRun,
  architecture: StudentArchitecture,
  control?: ControlName,
): Promise<TrainResult> {
  const all = paths(run.folder, run.teacherName)
  const where = control ? all.control(control) : all
  const { distil, capture } = run.settings
  const task = control ? `control ${control}` : 'distil'
  const { config } = await readArchitecture(all.architecture)
  const key = await trainingKey(run, architecture)
  const store = new CheckpointStore(where.checkpoints)
  const found = await latestOf(store, key)
  const saved = found?.saved
  const log = await TrainLog.resume(where.log, found?.step ?? 0)
  const times = await TrainLog.resume(where.times, found?.step ?? 0)
  const part = (prefix: string) =>
    new Map(
      [...(saved?.tensors ?? [])].flatMap(([name, t]) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), t]] : [],
      ),
    )

  const random = new Random(run.seed + 3)
  const initial = saved
    ? part('backbone/')
    : control === 'random-init'
      ? randomTensors(config, new Random(run.seed + 5))
      : parseSafetensors(await readBytes(all.initial)).tensors
  using student = new Student(
    Decoder.load(run.gpu, config, initial),
    new Map(
      run.capabilities.map(({ name }) => [
        name,
        saved
          ? Adapter.load(run.gpu, name, config, part(`adapter.${name}/`))
          : Adapter.create(run.gpu, name, config, ranksOf(architecture, config, name, control), random),
      ]),
    ),
  )
  await using beside = capture.targets === 'online' && control !== 'cross-entropy' ? await openTeacher(run) : undefined
  await using bench = await Workbench.open(run, student, architecture, {
    ...(control && { control }),
    ...(beside && { teacher: beside.teacher }),
  })
  const options = { stateBits: distil.stateBits ?? 32 } as const
  using backboneOptimiser = new Optimiser(
    run.gpu,
    trainable(student.backbone, distil.freezeEmbedding ?? false),
    options,
  )
  using adapterOptimiser = new Optimiser(run.gpu, adapterParameters(student), options)
  if (saved) {
    backboneOptimiser.load(part('backbone.optimiser/'))
    adapterOptimiser.load(part('adapters.optimiser/'))
  }

  const steps = distil.adapterSteps + distil.jointSteps
  const joint = (index: number) => index >= distil.adapterSteps
  const reverse = (index: number) => index >= (distil.reverseFrom ?? 1) * steps
  const backboneLr = linearSchedule({ lr: distil.backboneLr, steps: distil.jointSteps, warmup: distil.warmup ?? 10 })
  const adapterLr = linearSchedule({ lr: distil.adapterLr, steps, warmup: Math.min(5, distil.warmup ?? 5) })
  const norms: Record<string, number> = JSON.parse(saved?.metadata.norms ?? '{}')
  let first: Record<string, number> = JSON.parse(saved?.metadata.first ?? '{}')
  let last: Record<string, number> = JSON.parse(saved?.metadata.last ?? '{}')
  const recovered = new Set<string>(JSON.parse(saved?.metadata.recovered ?? '[]'))
  let started = performance.now()

  /** Weights of the anchors, before they are divided by what the anchors were at the start. */
  const anchorWeights = (index: number) => {
    const decay = 1 - index / steps
    return { alpha: distil.alpha * decay, beta: distil.beta * decay }
  }
  const loss = (step: Step, index: number) => {
    backboneOptimiser.setTraining(joint(index))
    const terms: Record<string, Tensor<'f32'>> = {}
    const losses = run.capabilities.map(({ name }) => {
      const parts = bench.terms(step, name, reverse(index))
      for (const [term, value] of Object.entries(parts)) terms[`${term} ${name}`] = value
      return weigh(step, parts, weights.get(name)!)
    })
    return { total: losses.reduce((sum, one) => add(step, sum, one)), terms }
  }
  // The last step trains all that is ever trained.
  const largest = (step: Step) => loss(step, steps - 1).total
  using scope = run.gpu.scope('anchor weights')
  const empty = () => scope.empty('f32', [1])
  const weights = new Map(run.capabilities.map(({ name }) => [name, { activation: empty(), attention: empty() }]))
  /** Writes what changes from step to step. @returns what else the work of a step depends on. */
  const feed = (index: number): string => {
    const { alpha, beta } = anchorWeights(index)
    for (const [name, { activation, attention }] of weights) {
      run.gpu.write(activation, [alpha / (norms[`activation ${name}`] ?? 1)])
      run.gpu.write(attention, [beta / (norms[`attention ${name}`] ?? 1)])
    }
    return [joint(index), reverse(index), ...[...weights.keys()].map((name) => bench.shapeOf(name))].join(', ')
  }
  using replays = new Replays(run.gpu)
  let peak = () => 0
  let used = 0
  let host = 0
  let planned: number | undefined
  let latest: StepRecord | undefined
  let savedAt = found?.step ?? 0
  const training = trainLoop({
    task,
    gpu: run.gpu,
    steps,
    ...(found && { from: found.step }),
    lr: (index) => (joint(index) ? backboneLr(index - distil.adapterSteps) : adapterLr(index)),
    async prepare(index) {
      started = performance.now()
      peak = run.gpu.watchPeak()
      for (const { name } of run.capabilities) await bench.fetch(name, index)
      planned ??= run.gpu.memory.liveBytes + run.gpu.plan((step) => void step.backward(largest(step))).peakBytes
      adapterOptimiser.begin(adapterLr(index))
      if (joint(index)) backboneOptimiser.begin(backboneLr(index - distil.adapterSteps))
    },
    replays,
    feed,
    largest,
    loss,
    update(step, gradients, index) {
      const clip = adapterOptimiser.update(step, gradients)
      return joint(index) ? backboneOptimiser.update(step, gradients) : clip
    },
    describe: (index) => `rows of step ${index} of ${[...bench.captures.keys()].join(', ')}`,
    async after(record, { hostMilliseconds }) {
      latest = record
      host = hostMilliseconds
      used = peak()
      if (record.step === 0) {
        // Anchors are divided by what they were at the start, so that their weights mean the same for every capability.
        for (const [term, value] of Object.entries(record.terms))
          if (!term.startsWith('output')) norms[term] = Math.max(value, 1e-3)
        first = { ...record.terms }
      }
      last = { ...record.terms }
      const seconds = (performance.now() - started) / 1000
      await log.add({ ...record, ...anchorWeights(record.step), tokens: bench.tokens })
      // What is another every time has a file of its own: the log of a run that was killed is that of one that was not.
      await times.add({ step: record.step, seconds, host: host / 1000, memory: used, planned })
      const done = record.step + 1
      if (done < steps && distil.recoverEvery && done % distil.recoverEvery === 0)
        await restore(distil.adapterSteps + distil.jointSteps + done)
      if (done % distil.checkpointEvery === 0 || done === steps) await save(record)
    },
    onProgress: run.onProgress,
    figures: ({ terms }) => ({
      ...summed(terms),
      'tokens/s': ((1000 * bench.tokens) / (performance.now() - started)).toFixed(0),
      host: `${host.toFixed(0)} ms`,
      memory: `${mebibytes(used)} of ${mebibytes(planned ?? 0)} MiB planned`,
    }),
    ...(run.signal && { signal: run.signal }),
  })

  await training.catch(async (error: unknown) => {
    // What was done since the last checkpoint is kept when a person stops the run.
    if (error instanceof InterruptedError && latest && latest.step + 1 > savedAt) await save(latest)
    throw error
  })

  async function restore(offset: number): Promise<void> {
    replays.clear()
    backboneOptimiser.setTraining(false)
    for (const name of await recover(bench, offset)) recovered.add(name)
    adapterOptimiser.setTraining(true)
  }

  async function save(record: StepRecord): Promise<void> {
    const all = new Map<string, CpuTensor>()
    const put = (prefix: string, tensors: ReadonlyMap<string, CpuTensor>) => {
      for (const [name, tensor] of tensors) all.set(prefix + name, tensor)
    }
    put('backbone/', await student.backbone.toTensors('F32'))
    for (const [name, adapter] of student.adapters) put(`adapter.${name}/`, await adapter.toTensors('F32'))
    put('backbone.optimiser/', await backboneOptimiser.save())
    put('adapters.optimiser/', await adapterOptimiser.save())
    const text = Object.entries({ norms, first, last, recovered: [...recovered] })
    const metadata = Object.fromEntries(text.map(([name, value]) => [name, JSON.stringify(value)]))
    await store.save(record.step + 1, writeSafetensors(all, { ...metadata, key }))
    savedAt = record.step + 1
  }

  await restore(steps)
  await student.write(where, run.settings.student.storage)
  return { steps, first, last, recovered: [...recovered] }
}

/** What a checkpoint belongs to: other settings, another student or other captures make it worthless. */
async function trainingKey(run: NiwtRun, architecture: StudentArchitecture): Promise<string> {
  const where = paths(run.folder, run.teacherName)
  const manifests: unknown[] = []
  for (const { name } of run.capabilities) manifests.push(await readJson(`${where.capture(name)}/manifest.json`))
  return sha256(JSON.stringify([run.seed, run.settings.distil, architecture, manifests]))
}

async function latestOf(store: CheckpointStore, key: string) {
  const found = await store.latest()
  if (!found) return undefined
  const saved = parseSafetensors(found.content)
  if (saved.metadata.key === key) return { step: found.step, saved }
  await removeFolder(store.folder)
  return undefined
}

function ranksOf(
  architecture: StudentArchitecture,
  config: Parameters<typeof uniformRanks>[0],
  name: string,
  control: ControlName | undefined,
): Readonly<Record<string, number>> {
  const { ranks, parameters } = architecture.adapters[name]
  return control === 'uniform-rank' ? uniformRanks(config, parameters) : ranks
}

/** Weights of the backbone that are trained; a frozen embedding is a frozen tied head as well. */
function trainable(backbone: Decoder, freezeEmbedding: boolean): Decoder['parameters'] {
  if (!freezeEmbedding) return backbone.parameters
  return new Map([...backbone.parameters].filter(([name]) => name !== 'model.embed_tokens.weight'))
}

/** All adapters' matrices under one optimiser; a step moves only those that its loss reached. */
function adapterParameters(student: Student): ReadonlyMap<string, Tensor<'f32'>> {
  const all = new Map<string, Tensor<'f32'>>()
  for (const [name, adapter] of student.adapters)
    for (const [key, tensor] of adapter.parameters) all.set(`${name}/${key}`, tensor as Tensor<'f32'>)
  return all
}

async function openTeacher(run: NiwtRun): Promise<AsyncDisposable & { readonly teacher: Decoder }> {
  await using files = await openModel(run.teacherFolder)
  const teacher = await Decoder.open(run.gpu, files.weights, { storage: run.settings.capture.storage ?? 'nf4' })
  return { teacher, [Symbol.asyncDispose]: async () => teacher[Symbol.dispose]() }
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20)
}

/** Terms of all capabilities together, for watching. */
function summed(terms: Readonly<Record<string, number>>): Record<string, string> {
  const sums: Record<string, number> = {}
  for (const [name, value] of Object.entries(terms)) {
    const [term] = name.split(' ')
    sums[term] = (sums[term] ?? 0) + value
  }
  return Object.fromEntries(Object.entries(sums).map(([term, value]) => [term, value.toFixed(3)]))
}
