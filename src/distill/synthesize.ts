import { join } from 'node:path'
import { z } from 'zod'
import {
  type DecoderConfig,
  type LinearName,
  linearShapes,
  parameterCount,
  parseModelConfig,
  toHuggingFaceConfig,
} from '../formats/model-config.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { readJson, writeJson } from '../host/files.ts'
import { inputOf } from '../models/decoder.ts'
import { readModelFolder } from '../models/folder.ts'
import { allocateRanks, type RankPlace } from '../pca/allocate.ts'
import { type Profile, parseProfile } from '../profile/schema.ts'
import { planAnchors } from './capture.ts'
import type { LayerPlan } from './profile.ts'
import { type NiwtRun, paths } from './run.ts'

const architectureSchema = z.object({
  teacher: z.object({ name: z.string(), parameters: z.number().int().positive() }),
  /** config.json of the backbone. */
  backbone: z.record(z.string(), z.unknown()),
  backboneParameters: z.number().int().positive(),
  /** backboneParameters / teacher.parameters */
  backboneRatio: z.number().positive(),
  anchors: z.object({ kept: z.array(z.number().int()), outputs: z.array(z.string()), query: z.string() }),
  adapters: z.record(
    z.string(),
    z.object({
      ranks: z.record(z.string(), z.number().int().positive()),
      parameters: z.number().int(),
      ratio: z.number(),
    }),
  ),
  router: z.object({ kind: z.literal('prototypes'), width: z.number().int().positive() }),
})

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
 * Stage 3: the student. Its backbone keeps the layers that ablation missed most; the ranks of each adapter follow the
 * dimensions that the profile found, within the budget.
 * @throws RangeError when the backbone or the budget is larger than NIWT allows.
 */
export async function synthesizeStage(run: NiwtRun): Promise<Pick<StudentArchitecture, 'backboneRatio'>> {
  const where = paths(run.folder, run.teacherName)
  const { config } = await readModelFolder(run.teacherFolder)
  const { layers, adapterBudget } = run.settings.student
  const anchors = planAnchors((await readJson(where.layers)) as LayerPlan, config.layers, layers)
  const backbone = { ...config, layers }
  const teacherParameters = parameterCount(config)
  const backboneParameters = parameterCount(backbone)
  const backboneRatio = backboneParameters / teacherParameters
  if (backboneRatio > largestBackbone)
    throw new RangeError(
      `Cannot keep ${layers} layers: the backbone would have ${backboneRatio.toFixed(3)} of the teacher's parameters, at most ${largestBackbone} are allowed`,
    )
  if (adapterBudget > largestAdapter)
    throw new RangeError(
      `Cannot spend ${adapterBudget} of the teacher's parameters on an adapter: at most ${largestAdapter} is allowed`,
    )

  const adapters: StudentArchitecture['adapters'] = {}
  for (const { name } of run.capabilities) {
    const path = join(where.profile(name), 'profile.json')
    const profile = parseProfile(path, await readJson(path))
    const ranks = adapterRanks(profile, backbone, anchors.kept, adapterBudget * teacherParameters)
    const parameters = Object.entries(ranks).reduce((sum, [place, rank]) => {
      const [n, k] = linearShapes(backbone)[place.slice(place.indexOf('.') + 1) as LinearName]
      return sum + rank * (n + k)
    }, 0)
    adapters[name] = { ranks, parameters, ratio: parameters / teacherParameters }
  }
  const architecture: StudentArchitecture = {
    teacher: { name: run.teacherName, parameters: teacherParameters },
    backbone: { ...toHuggingFaceConfig(backbone, 'float16') },
    backboneParameters,
    backboneRatio,
    anchors: { kept: [...anchors.kept], outputs: [...anchors.outputs], query: anchors.query },
    adapters,
    router: { kind: 'prototypes', width: backbone.width },
  }
  await writeJson(where.architecture, architecture)
  return { backboneRatio }
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
