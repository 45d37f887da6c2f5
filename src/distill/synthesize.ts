import { join } from 'node:path'
import { z } from 'zod'
import {
  type DecoderConfig,
  expectedTensors,
  type LinearName,
  linearShapes,
  parameterCount,
  parseModelConfig,
  toHuggingFaceConfig,
} from '../formats/model-config.ts'
import { extraFeatures, type ModelConfig } from '../formats/model-family.ts'
import { routerKinds } from '../formats/router-kind.ts'
import { writeSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import { readJson, writeFileAtomic, writeJson } from '../host/files.ts'
import { inputOf } from '../models/decoder.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import { allocateRanks, type RankPlace } from '../pca/allocate.ts'
import { type Profile, parseProfile } from '../profile/schema.ts'
import { type AnchorPlan, planAnchors } from './anchors.ts'
import { narrowFfn } from './narrow.ts'
import type { LayerPlan } from './profile.ts'
import { type NiwtRun, paths } from './run.ts'

const whole = z.number().int()

/** configs/student_arch.json. */
const architectureSchema = z.object({
  teacher: z.object({ name: z.string(), parameters: whole.positive() }),
  /** config.json of the backbone, as Hugging Face's Llama classes read it. */
  backbone: z.record(z.string(), z.unknown()).meta({ description: 'config.json of the backbone' }),
  backboneParameters: whole.positive(),
  backboneRatio: z.number().positive().meta({ description: 'backboneParameters / teacher.parameters' }),
  inherits: z
    .enum(['teacher', 'backbone'])
    .meta({ description: 'whose weights it begins with: the teacher’s, or those of another pretrained model' }),
  anchors: z.object({
    kept: z.array(whole).meta({ description: 'teacher layers that the student keeps, ascending' }),
    outputs: z.array(z.object({ layer: whole, teacher: z.string() })).meta({
      description: 'student layers whose output is anchored, and the teacher’s activation that it is anchored to',
    }),
    query: z.string().meta({ description: 'the teacher’s activation whose relations the last query is anchored to' }),
  }),
  ffn: z
    .object({
      width: whole.positive(),
      of: whole.positive(),
      kept: z
        .array(z.number())
        .meta({ description: 'by layer: share of the FFN’s output energy that the channels carry' }),
    })
    .optional(),
  adapters: z.record(
    z.string(),
    z.object({
      ranks: z.record(z.string(), whole.positive()).meta({ description: 'by <student layer>.<linear layer>' }),
      parameters: whole,
      ratio: z.number().meta({ description: 'parameters / teacher.parameters' }),
    }),
  ),
  router: z.object({ kind: z.enum(routerKinds), width: whole.positive() }),
})

/** The JSON Schema of student_arch.json, as docs/student_arch.schema.json publishes it. */
export function architectureJsonSchema(): object {
  return z.toJSONSchema(architectureSchema)
}

/** What stage 3 decides: configs/student_arch.json. */
export type StudentArchitecture = z.infer<typeof architectureSchema>

/** Reads configs/student_arch.json. @throws SyntaxError when it is damaged. */
export async function readArchitecture(
  path: string,
): Promise<{ architecture: StudentArchitecture; config: DecoderConfig }> {
  const result = architectureSchema.safeParse(await readJson(path))
  if (!result.success) {
    const [issue] = result.error.issues
    throw new SyntaxError(`Cannot read ${path}: ${issue.path.join('.')}: ${issue.message}`)
  }
  return { architecture: result.data, config: parseModelConfig(result.data.backbone) }
}

const largestBackbone = 0.7
const largestAdapter = 0.05

/**
 * Stage 3: the student. Its backbone keeps the layers that ablation missed most and, where it is to be narrower, the hidden
 * channels of each FFN that carry most; or it is another pretrained model. The ranks of each adapter follow the dimensions
 * that the profile found, within the budget. After it nothing needs the teacher, unless it stands beside the student.
 * @throws RangeError when the backbone or the budget is larger than NIWT allows.
 */
export async function synthesizeStage(run: NiwtRun): Promise<Pick<StudentArchitecture, 'backboneRatio'>> {
  const where = paths(run.folder, run.teacherName)
  const { adapterBudget } = run.settings.student
  if (adapterBudget > largestAdapter)
    throw new RangeError(
      `Cannot spend ${adapterBudget} of the teacher's parameters on an adapter: at most ${largestAdapter} is allowed`,
    )
  await using teacher = await openModel(run.teacherFolder)
  const plan = (await readJson(where.layers)) as LayerPlan
  const seed = run.settings.student.backbone
    ? await fromBackbone(run.settings.student.backbone, teacher)
    : await fromTeacher(run, teacher, plan)
  const { config, tensors, anchors, ffn } = seed
  const teacherParameters = modelParameters(teacher)
  const backboneParameters = parameterCount(config)
  const backboneRatio = expectSmaller(config, teacherParameters)

  const adapters: StudentArchitecture['adapters'] = {}
  for (const { name } of run.capabilities) {
    const path = join(where.profile(name), 'profile.json')
    const profile = parseProfile(path, await readJson(path))
    const ranks = adapterRanks(profile, config, anchors.kept, adapterBudget * teacherParameters)
    const parameters = rankParameters(config, ranks)
    adapters[name] = { ranks, parameters, ratio: parameters / teacherParameters }
  }
  const architecture: StudentArchitecture = {
    teacher: { name: run.teacherName, parameters: teacherParameters },
    backbone: { ...toHuggingFaceConfig(config, 'float16') },
    backboneParameters,
    backboneRatio,
    inherits: run.settings.student.backbone ? 'backbone' : 'teacher',
    anchors: { ...anchors, kept: [...anchors.kept], outputs: [...anchors.outputs] },
    ...(ffn && { ffn }),
    adapters,
    router: { kind: 'linear', width: config.width },
  }
  await writeFileAtomic(where.initial, writeSafetensors(tensors, { format: 'pt' }))
  await writeJson(where.architecture, architecture)
  return { backboneRatio }
}

/**
 * The share of the teacher's parameters that a backbone has.
 * @throws RangeError when it is more than NIWT allows.
 */
export function expectSmaller(config: DecoderConfig, teacherParameters: number): number {
  const ratio = parameterCount(config) / teacherParameters
  if (ratio > largestBackbone)
    throw new RangeError(
      `Cannot keep ${config.layers} layers with ${config.ffnWidth} hidden channels: the backbone would have ` +
        `${ratio.toFixed(3)} of the teacher's parameters, at most ${largestBackbone} are allowed; ` +
        'lower student.layers or student.ffnWidth',
    )
  return ratio
}

/** What a student begins with. */
interface StudentSeed {
  readonly config: DecoderConfig
  readonly tensors: ReadonlyMap<string, CpuTensor>
  readonly anchors: AnchorPlan
  readonly ffn?: StudentArchitecture['ffn']
}

/** The teacher without the layers and the channels that are missed least. */
async function fromTeacher(run: NiwtRun, teacher: OpenModel, plan: LayerPlan): Promise<StudentSeed> {
  const { layers, ffnWidth } = run.settings.student
  const full = plainConfig(teacher.config, 'The student is made of the teacher')
  const anchors = planAnchors(plan, full.layers, layers, run.settings.capture.anchorLayers)
  const tensors = inheritWeights(await readTensors(teacher, full, anchors.kept), anchors.kept)
  const config = { ...full, layers }
  if (ffnWidth === undefined || ffnWidth === full.ffnWidth) return { config, tensors, anchors }
  const { tensors: narrow, kept } = await narrowFfn(run, teacher, tensors, anchors.kept, ffnWidth)
  const ffn = { width: ffnWidth, of: full.ffnWidth, kept }
  return { config: { ...config, ffnWidth }, tensors: narrow, anchors, ffn }
}

/** Another pretrained model: it has no layers in common with the teacher, so its outputs are compared and no activations. */
async function fromBackbone(path: string, teacher: OpenModel): Promise<StudentSeed> {
  await using model = await openModel(path)
  const config = plainConfig(model.config, `The student begins with ${path}`)
  const every = (i: number) => Math.round(((i + 1) * teacher.config.layers) / config.layers) - 1
  const kept = Array.from({ length: config.layers }, (_, i) => every(i))
  const anchors = { kept, outputs: [], query: `${kept.at(-1)}.query` }
  return { config, tensors: await readTensors(model, config), anchors }
}

/** @throws SyntaxError when the model is no plain Llama decoder: only such are trained. */
export function plainConfig(config: ModelConfig, what: string): DecoderConfig {
  const extra = extraFeatures(config)
  if (extra.length > 0)
    throw new SyntaxError(
      `${what}, but this ${config.family} needs what a plain decoder lacks: ${extra.join(', ')}. Students are plain Llama ` +
        'decoders (llama, and mistral without a window): give one with student.backbone, which a teacher of any family may have',
    )
  const { vocabularySize, width, layers, heads, kvHeads, headSize, ffnWidth } = config
  const { normEps, ropeTheta, contextLength, tiedHead, eosId } = config
  return {
    ...{ vocabularySize, width, layers, heads, kvHeads, headSize, ffnWidth },
    ...{ normEps, ropeTheta, contextLength, tiedHead, eosId },
  }
}

/** The tensors of a model as f32, without the layers that are not in `kept`. */
async function readTensors(
  model: OpenModel,
  config: DecoderConfig,
  kept?: readonly number[],
): Promise<Map<string, CpuTensor>> {
  const tensors = new Map<string, CpuTensor>()
  for (const [name, shape] of expectedTensors(config)) {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1]
    if (layer !== undefined && kept && !kept.includes(Number(layer))) continue
    tensors.set(name, cpuTensor('F32', shape, await model.weights.read(name)))
  }
  return tensors
}

/** Number of parameters of a model's files. */
export function modelParameters({ weights }: OpenModel): number {
  return [...weights.recipes.values()].reduce((sum, { shape }) => sum + shape.reduce((size, n) => size * n, 1), 0)
}

/** Parameters of updates of these ranks. */
export function rankParameters(config: DecoderConfig, ranks: Readonly<Record<string, number>>): number {
  return Object.entries(ranks).reduce((sum, [place, rank]) => {
    const [n, k] = linearShapes(config)[place.slice(place.indexOf('.') + 1) as LinearName]
    return sum + rank * (n + k)
  }, 0)
}

/** One rank for every linear layer, or as near as multiples of four allow, for `budget` parameters. */
export function uniformRanks(config: DecoderConfig, budget: number): Record<string, number> {
  const places: RankPlace[] = Array.from({ length: config.layers }, (_, layer) => layer).flatMap((layer) =>
    Object.entries(linearShapes(config)).map(([linear, [n, k]]) => ({
      name: `${layer}.${linear}`,
      dimension: Math.min(n, k),
      cost: n + k,
    })),
  )
  // Alike in dimension, so that all grow together.
  const least = Math.min(...places.map(({ dimension }) => dimension))
  return Object.fromEntries(
    allocateRanks(
      places.map((place) => ({ ...place, dimension: least })),
      budget,
    ),
  )
}

/** Ranks by `<student layer>.<linear>`, from the dimension of what each linear layer reads in the teacher. */
export function adapterRanks(
  profile: Pick<Profile, 'ranks'>,
  backbone: DecoderConfig,
  kept: readonly number[],
  budget: number,
): Record<string, number> {
  const places: RankPlace[] = kept.flatMap((teacherLayer, layer) =>
    Object.entries(linearShapes(backbone)).map(([linear, [n, k]]) => ({
      name: `${layer}.${linear}`,
      dimension: profile.ranks[`${teacherLayer}.${inputOf[linear as LinearName]}`].rank,
      cost: n + k,
    })),
  )
  return Object.fromEntries(allocateRanks(places, budget))
}

/** The student's first weights: those of the teacher's layers that it keeps. */
export function inheritWeights(
  teacher: ReadonlyMap<string, CpuTensor>,
  kept: readonly number[],
): Map<string, CpuTensor> {
  const tensors = new Map<string, CpuTensor>()
  for (const [name, tensor] of teacher) {
    const match = /^model\.layers\.(\d+)\.(.*)$/.exec(name)
    if (!match) tensors.set(name, tensor)
    else if (kept.includes(Number(match[1])))
      tensors.set(`model.layers.${kept.indexOf(Number(match[1]))}.${match[2]}`, tensor)
  }
  return tensors
}
