import { Adapter } from '../adapters/adapter.ts'
import { Random } from '../core/random.ts'
import { type DecoderConfig, expectedTensors, parameterCount } from '../formats/model-config.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import { add } from '../kernels/add.ts'
import { Decoder } from '../models/decoder.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import type { Step } from '../runtime/step.ts'
import { drawBatch } from '../train/batch.ts'
import { Optimiser } from '../train/optimiser.ts'
import { type AnchorPlan, planAnchors, queryWidth } from './anchors.ts'
import { captureColumns, lookAt } from './capture.ts'
import { bytesPerToken, type CaptureColumn, type CaptureLayout, type CaptureRows } from './capture-store.ts'
import { anchoredTerms, wantedOf } from './losses.ts'
import { mostTried } from './profile.ts'
import type { NiwtRun } from './run.ts'
import { expectSmaller, modelParameters, plainConfig, rankParameters, uniformRanks } from './synthesize.ts'
import { inputValues, uploadBases, uploadInputs } from './term-inputs.ts'
import { weigh } from './workbench.ts'

/** What a run would take: see {@link planRun}. */
export interface RunPlan {
  readonly teacher: { readonly parameters: number; readonly bytes: number }
  readonly student: { readonly parameters: number; readonly ratio: number; readonly adapterParameters: number }
  /** Bytes on the GPU: weights, adapters and moments; one pass beside them; the larger of that and the teacher's. */
  readonly memory: { readonly resident: number; readonly pass: number; readonly peak: number }
  readonly capture: { readonly tokens: number; readonly bytesPerToken: number; readonly bytes: number }
  readonly training: {
    readonly steps: number
    readonly tokensPerStep: number
    readonly secondsPerStep: number
    /** Students that are trained: the one of the run, and the controls. */
    readonly students: number
  }
  /** Bytes of captures, checkpoints, students and first weights. */
  readonly disk: number
  /** Seconds by stage, from one batch of the teacher and one step of the student. */
  readonly seconds: Readonly<Record<'profile' | 'capture' | 'distil' | 'gate', number>>
}

/**
 * What a run would take: memory by planning, time by running one batch of the teacher and one step of a student with the
 * right shapes and no meaning. Nothing is written.
 * @throws RuleError when the capture would be too large, ResourceError when the GPU is too small.
 */
export async function planRun(run: NiwtRun, teacherPath: string): Promise<RunPlan> {
  const { settings } = run
  await using files = await openModel(teacherPath)
  const teacherConfig = files.config
  const { config, anchors, columns, parameters, ratio } = await outline(run, files)
  const { layers, adapterBudget } = settings.student
  const bases = basesOf(run, anchors, teacherConfig.width, teacherConfig.heads * teacherConfig.headSize)
  const teacher = await timeTeacher(run, files, columns, bases)
  const ranks = uniformRanks(config, adapterBudget * parameters)
  const training = await timeStep(run, config, ranks, columns, anchors, bases)

  const captured = run.capabilities.reduce((sum, { name }) => sum + settings.capture.rows[name], 0) * settings.tokens
  const each = bytesPerToken(settings.tokens, columns)
  const { adapterSteps, jointSteps, recoverySteps } = settings.distil
  const steps = adapterSteps + jointSteps
  const students = 1 + (settings.controls?.length ?? 0)
  const studentParameters = parameterCount(config)
  const adapterParameters = rankParameters(config, ranks)
  const trained = studentParameters + run.capabilities.length * adapterParameters
  const scored = run.capabilities.map((capability) => capability.choices?.() ?? capability.items())
  const scoredTokens = scored.flat().reduce((sum, item) => {
    const rows = 'rows' in item ? item.rows : [item]
    return sum + rows.reduce((all, { weights }) => all + weights.length, 0)
  }, 0)
  const profiled = settings.profile.samples * settings.tokens * run.capabilities.length
  const removed = teacherConfig.layers - layers
  const probed = (settings.profile.heldOutTokens ?? 512) * run.capabilities.length
  // Half of the layers run again for each that is tried.
  const ablated = 0.5 * probed * removed * (mostTried(teacherConfig.layers, removed) - removed / 2)
  return {
    teacher: { parameters, bytes: teacher.bytes },
    student: { parameters: studentParameters, ratio, adapterParameters },
    memory: { ...training.memory, peak: Math.max(teacher.bytes, training.memory.resident + training.memory.pass) },
    capture: { tokens: captured, bytesPerToken: each, bytes: captured * each },
    training: { steps, tokensPerStep: training.tokens, secondsPerStep: training.seconds, students },
    disk: captured * each + 4 * studentParameters + students * (2 * 12 * trained + 2 * trained),
    seconds: {
      profile: teacher.secondsPerToken * ((1 + (settings.profile.share ?? 0.12)) * profiled + ablated),
      capture: teacher.secondsPerToken * (captured + scoredTokens),
      distil: students * training.seconds * (steps + recoverySteps),
      gate: students * ratio * teacher.secondsPerToken * scoredTokens,
    },
  }
}

/** The shapes of a run: of its student, and of a captured row. */
interface Outline {
  readonly config: DecoderConfig
  readonly anchors: AnchorPlan | undefined
  readonly columns: CaptureColumn[]
  /** Of the teacher. */
  readonly parameters: number
  /** Share of them that the student's backbone has. */
  readonly ratio: number
}

async function outline({ settings }: NiwtRun, files: OpenModel): Promise<Outline> {
  const teacher = files.config
  await using other = settings.student.backbone ? await openModel(settings.student.backbone) : undefined
  const { layers, ffnWidth = teacher.ffnWidth } = settings.student
  const config: DecoderConfig = other
    ? plainConfig(other.config, 'The student')
    : { ...plainConfig(teacher, 'The student is made of the teacher'), layers, ffnWidth }
  // Which layers go does not change any shape.
  const removal = Array.from({ length: Math.max(0, teacher.layers - layers) }, (_, i) => i)
  const anchors = other
    ? undefined
    : planAnchors({ removal, cost: [] }, teacher.layers, layers, settings.capture.anchorLayers)
  const columns = captureColumns(teacher, settings.tokens, settings.capture, anchors)
  const parameters = modelParameters(files)
  return { config, anchors, columns, parameters, ratio: expectSmaller(config, parameters) }
}

/**
 * Checks what can be known of a run before it begins: that its student is small enough, and its capture.
 * @throws RangeError for a student or an adapter that is too large, RuleError for a capture that is.
 */
export async function checkRun(run: NiwtRun, teacherPath: string): Promise<void> {
  await using files = await openModel(teacherPath)
  const { config, parameters } = await outline(run, files)
  uniformRanks(config, run.settings.student.adapterBudget * parameters)
}

function basesOf(
  { settings: { capture } }: NiwtRun,
  anchors: AnchorPlan | undefined,
  width: number,
  queries: number,
): Map<string, CpuTensor> {
  const zeros = (rows: number, columns: number) => cpuTensor('F32', [rows, columns], new Float32Array(rows * columns))
  if (!anchors) return new Map()
  return new Map([
    ...anchors.outputs.map(({ teacher }) => [teacher, zeros(capture.anchorRank, width)] as const),
    [anchors.query, zeros(queryWidth(capture), queries)],
  ])
}

/** One batch as a capture makes it, the second of two: the first compiles the kernels. */
async function timeTeacher(
  run: NiwtRun,
  files: OpenModel,
  columns: readonly CaptureColumn[],
  bases: ReadonlyMap<string, CpuTensor>,
): Promise<{ bytes: number; secondsPerToken: number }> {
  const { settings, gpu } = run
  const before = gpu.memory.liveBytes
  using teacher = await Decoder.open(gpu, files.weights, { storage: settings.capture.storage ?? 'f32' })
  const peak = gpu.watchPeak()
  const random = new Random(run.seed)
  const batch = drawBatch(run.capabilities[0], random, settings.capture.batch ?? 4, settings.tokens)
  const layout = { columns: [...columns] } as unknown as CaptureLayout
  let seconds = 0
  for (let round = 0; round < 2; round++) {
    const started = performance.now()
    await lookAt(run, teacher, batch, bases, layout, 0)
    seconds = (performance.now() - started) / 1000
  }
  return { bytes: peak() - before, secondsPerToken: seconds / (batch.rows * batch.tokens) }
}

/** One step of joint training, the second of two. */
async function timeStep(
  run: NiwtRun,
  config: DecoderConfig,
  ranks: Readonly<Record<string, number>>,
  columns: readonly CaptureColumn[],
  anchors: AnchorPlan | undefined,
  bases: ReadonlyMap<string, CpuTensor>,
): Promise<{ memory: { resident: number; pass: number }; tokens: number; seconds: number }> {
  const { gpu, settings } = run
  const { distil } = settings
  const before = gpu.memory.liveBytes
  const random = new Random(run.seed)
  using student = Decoder.load(gpu, config, emptyTensors(config))
  const adapters = run.capabilities.map(({ name }) => Adapter.create(gpu, name, config, ranks, random))
  try {
    const embedding = 'model.embed_tokens.weight'
    const trained = [...student.parameters].filter(([name]) => !(distil.freezeEmbedding && name === embedding))
    const options = { stateBits: distil.stateBits ?? 32 } as const
    using backboneOptimiser = new Optimiser(gpu, new Map(trained), options)
    const own = adapters.flatMap((adapter) =>
      [...adapter.parameters].map(([key, t]) => [`${adapter.name}/${key}`, t] as const),
    )
    using adapterOptimiser = new Optimiser(gpu, new Map(own), options)
    const resident = gpu.memory.liveBytes - before
    const batches = run.capabilities.map(({ name }) => emptyRows(distil.rows[name], settings.tokens, columns))
    const work = (step: Step) => {
      const projections = uploadBases(step, bases)
      const losses = batches.map((rows, i) => {
        const anchored =
          anchors !== undefined && !distil.gradientCheckpoint && rows.columns.has(`anchor.${anchors.query}`)
        const wanted = wantedOf({ anchored }, rows.columns.has('top.ids'))
        const parts = anchoredTerms(step, {
          ...{ student, adapter: adapters[i], anchors: anchors ?? { kept: [], outputs: [], query: '' }, anchored },
          ...{ inputs: uploadInputs(step, inputValues(rows, wanted)), bases: projections },
          checkpoint: distil.gradientCheckpoint ?? false,
        })
        return weigh(step, parts, { activation: distil.alpha, attention: distil.beta })
      })
      const loss = losses.reduce((sum, one) => add(step, sum, one))
      const gradients = step.backward(loss)
      adapterOptimiser.update(step, gradients, 0)
      backboneOptimiser.update(step, gradients, 0)
      return loss
    }
    const { peakBytes: pass } = gpu.expectRoom('distil', (step) => void work(step))
    let seconds = 0
    for (let round = 0; round < 2; round++) {
      const started = performance.now()
      using step = gpu.step({ label: 'plan' })
      await step.readNumber(work(step))
      seconds = (performance.now() - started) / 1000
    }
    const tokens = batches.reduce((sum, rows) => sum + rows.rows * rows.tokens, 0)
    return { memory: { resident, pass }, tokens, seconds }
  } finally {
    for (const adapter of adapters) adapter[Symbol.dispose]()
  }
}

function emptyTensors(config: DecoderConfig): Map<string, CpuTensor> {
  return new Map(
    [...expectedTensors(config)].map(([name, shape]) => [
      name,
      { dtype: 'F32', shape, data: new Uint8Array(4 * shape.reduce((size, n) => size * n, 1)) } satisfies CpuTensor,
    ]),
  )
}

/** Rows of a capture that mean nothing: all tokens trained, likeliest tokens that differ. */
function emptyRows(rows: number, tokens: number, columns: readonly CaptureColumn[]): CaptureRows {
  const filled = columns.map(({ name, dtype, shape }) => {
    const size = rows * shape.reduce((all, n) => all * n, 1)
    const width = shape.at(-1)!
    const values = dtype === 'F16' ? new Float32Array(size) : new Uint32Array(size)
    if (name === 'weights') values.fill(1)
    if (name === 'top.ids') for (let i = 0; i < size; i++) values[i] = i % width
    if (name === 'top.probabilities') values.fill(1 / (width + 1))
    return [name, { shape, values }] as const
  })
  return { rows, tokens, columns: new Map(filled) }
}
