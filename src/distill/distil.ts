import { Adapter } from '../adapters/adapter.ts'
import { Random } from '../core/random.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { writeFileAtomic } from '../host/files.ts'
import { add } from '../kernels/add.ts'
import { Decoder } from '../models/decoder.ts'
import { readModelFolder } from '../models/folder.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { CheckpointStore } from '../train/checkpoint-store.ts'
import { type StepRecord, trainLoop } from '../train/loop.ts'
import { type GradientSource, Optimiser } from '../train/optimiser.ts'
import { linearSchedule } from '../train/schedule.ts'
import { TrainLog } from '../train/train-log.ts'
import { anchorBases, type Capture, readCapture } from './capture.ts'
import { anchoredTerms } from './losses.ts'
import { recover } from './recover.ts'
import { fitRouter } from './router.ts'
import { type NiwtRun, paths } from './run.ts'
import { Student } from './student.ts'
import { inheritWeights, readArchitecture } from './synthesize.ts'
import { drawRows, type Workbench, weigh } from './workbench.ts'

/** What stage 4 reports. */
export interface DistilResult {
  readonly steps: number
  /** Each term of the loss at the first and at the last step, by `term capability`. */
  readonly first: Readonly<Record<string, number>>
  readonly last: Readonly<Record<string, number>>
  /** Capabilities whose adapter was trained further because they fell behind. */
  readonly recovered: readonly string[]
  /** Share of prompts that the router sends to the right adapter, on captured rows kept back from training. */
  readonly routerAccuracy: number
}

/**
 * Stage 4: adapters first, then backbone and adapters together, on captured targets alone; then recovery of
 * capabilities that fell behind, and the router. Checkpoints let a stopped run go on.
 */
export async function distilStage(run: NiwtRun): Promise<DistilResult> {
  const where = paths(run.folder, run.teacherName)
  const { distil } = run.settings
  const { architecture, config } = await readArchitecture(where.architecture)
  const captures = new Map<string, Capture>()
  const bases = new Map<string, Map<string, CpuTensor>>()
  for (const { name } of run.capabilities) {
    captures.set(name, await readCapture(where.capture(name)))
    bases.set(name, await anchorBases(run, name, architecture.anchors, run.settings.capture))
  }
  const store = new CheckpointStore(where.checkpoints)
  const found = await store.latest()
  const saved = found && parseSafetensors(found.content)
  const log = await TrainLog.resume(where.log, found?.step ?? 0)
  const part = (prefix: string) =>
    new Map(
      [...(saved?.tensors ?? [])].flatMap(([name, t]) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), t]] : [],
      ),
    )

  const initial = saved
    ? part('backbone/')
    : inheritWeights((await readModelFolder(run.teacherFolder)).tensors, architecture.anchors.kept)
  const random = new Random(run.seed + 3)
  using student = new Student(
    Decoder.load(run.gpu, config, initial),
    new Map(
      run.capabilities.map(({ name }) => [
        name,
        saved
          ? Adapter.load(run.gpu, name, config, part(`adapter.${name}/`))
          : Adapter.create(run.gpu, name, config, architecture.adapters[name].ranks, random),
      ]),
    ),
  )
  const bench: Workbench = { student, captures, bases, architecture }
  using backboneOptimiser = new Optimiser(run.gpu, student.backbone.parameters)
  using adapterOptimiser = new Optimiser(run.gpu, adapterParameters(student))
  if (saved) {
    backboneOptimiser.load(part('backbone.optimiser/'))
    adapterOptimiser.load(part('adapters.optimiser/'))
  }

  const steps = distil.adapterSteps + distil.jointSteps
  const joint = (index: number) => index >= distil.adapterSteps
  const backboneLr = linearSchedule({ lr: distil.backboneLr, steps: distil.jointSteps, warmup: 10 })
  const adapterLr = linearSchedule({ lr: distil.adapterLr, steps, warmup: 5 })
  const norms: Record<string, number> = JSON.parse(saved?.metadata.norms ?? '{}')
  let first: Record<string, number> = JSON.parse(saved?.metadata.first ?? '{}')
  let last: Record<string, number> = JSON.parse(saved?.metadata.last ?? '{}')

  await trainLoop({
    task: 'distil',
    gpu: run.gpu,
    from: found?.step,
    steps,
    lr: (index) => (joint(index) ? backboneLr(index - distil.adapterSteps) : adapterLr(index)),
    loss(step, index) {
      backboneOptimiser.setTraining(joint(index))
      const decay = 1 - index / steps
      const terms: Record<string, Tensor<'f32'>> = {}
      const losses = run.capabilities.map(({ name }) => {
        const rows = drawRows(run, captures.get(name)!, name, index)
        const parts = anchoredTerms(
          step,
          student.backbone,
          student.adapters.get(name)!,
          captures.get(name)!,
          rows,
          architecture.anchors,
          bases.get(name)!,
        )
        for (const [term, value] of Object.entries(parts)) terms[`${term} ${name}`] = value
        return weigh(step, parts, {
          activation: (distil.alpha * decay) / (norms[`activation ${name}`] ?? 1),
          attention: (distil.beta * decay) / (norms[`attention ${name}`] ?? 1),
        })
      })
      return { total: losses.reduce((sum, loss) => add(step, sum, loss)), terms }
    },
    update: (step, gradients, index) => update(step, gradients, index),
    async after(record) {
      if (record.step === 0) {
        // Anchors are divided by what they were at the start, so that their weights mean the same for every capability.
        for (const [term, value] of Object.entries(record.terms))
          if (!term.startsWith('output')) norms[term] = Math.max(value, 1e-3)
        first = record.terms
      }
      last = record.terms
      await log.add(record)
      if ((record.step + 1) % distil.checkpointEvery === 0 || record.step + 1 === steps) await save(record)
    },
    onProgress: run.onProgress,
    signal: run.signal,
  })

  function update(step: Step, gradients: GradientSource, index: number): Tensor<'f32'> {
    const clip = adapterOptimiser.update(step, gradients, adapterLr(index))
    return joint(index) ? backboneOptimiser.update(step, gradients, backboneLr(index - distil.adapterSteps)) : clip
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
    const text = {
      norms: JSON.stringify(norms),
      first: JSON.stringify(first),
      last: JSON.stringify(last),
    }
    await store.save(record.step + 1, writeSafetensors(all, text))
  }

  backboneOptimiser.setTraining(false)
  const recovered = await recover(run, bench)
  const { prototypes, accuracy } = await fitRouter(run, bench)
  await student.write(where, run.settings.student.storage)
  const names = new Map([['prototypes', prototypes]])
  await writeFileAtomic(
    `${where.student}/router.safetensors`,
    writeSafetensors(names, { capabilities: JSON.stringify(run.capabilities.map(({ name }) => name)) }),
  )
  return { steps, first, last, recovered, routerAccuracy: accuracy }
}

/** All adapters' matrices under one optimiser; a step moves only those that its loss reached. */
function adapterParameters(student: Student): ReadonlyMap<string, Tensor<'f32'>> {
  const all = new Map<string, Tensor<'f32'>>()
  for (const [name, adapter] of student.adapters)
    for (const [key, tensor] of adapter.parameters) all.set(`${name}/${key}`, tensor as Tensor<'f32'>)
  return all
}
