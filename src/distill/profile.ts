import { join } from 'node:path'
import { Random } from '../core/random.ts'
import { exists, sha256, writeJson } from '../host/files.ts'
import { Decoder } from '../models/decoder.ts'
import { openModel } from '../models/open-model.ts'
import { Ablation } from '../profile/ablate.ts'
import { heldOutBatch, profileCapability, profileDefaults } from '../profile/profile.ts'
import { writeReport } from '../profile/report.ts'
import { modelHash } from '../profile/run.ts'
import type { Batch } from '../train/batch.ts'
import { type NiwtRun, paths } from './run.ts'

/** Which layers to leave out first, by true ablation over all capabilities. */
export interface LayerPlan {
  /** Layers in the order in which they are removed, least missed first. */
  readonly removal: readonly number[]
  /** Mean KL in nats a token after each removal. */
  readonly cost: readonly number[]
}

/** Tokens of the rows on which layers are chosen. */
const probeTokens = 1024

/**
 * Stage 2: reads the teacher, of any family and held in NF4 unless told, on samples of each capability. Activations stay
 * on the GPU; what is written is bases, spectra and scores. A capability that was begun goes on.
 */
export async function profileStage(run: NiwtRun): Promise<LayerPlan> {
  const where = paths(run.folder, run.teacherName)
  const { samples, batch, storage = 'nf4', share = 4 } = run.settings.profile
  await using model = await openModel(run.teacherFolder)
  using teacher = await Decoder.open(run.gpu, model.weights, { storage })
  const { layers, heads, width } = model.config
  const facts = { name: run.teacherName, hash: await modelHash(model), storage, layers, heads, width }
  const probes: Batch[] = []
  for (const capability of run.capabilities) {
    const random = new Random(run.seed + 1)
    const rows = Array.from({ length: samples }, () => capability.row(random, run.settings.tokens))
    probes.push(heldOutBatch(rows, probeTokens))
    const folder = where.profile(capability.name)
    if (exists(join(folder, 'profile.json'))) continue
    const { gpu: _, ...common } = run
    await profileCapability({
      ...{
        ...common,
        decoder: teacher,
        tokenizer: model.tokenizer,
        teacher: facts,
        capability: capability.name,
        folder,
      },
      description: capability.description,
      dataHash: sha256(JSON.stringify(rows.map(({ ids }) => Array.from(ids)))),
      samples: rows,
      heldOut: rows,
      settings: { ...profileDefaults, batch, share, ablate: layers },
    })
  }
  await writeReport(join(where.layers, '..'))
  const plan = await planRemoval(run, teacher, probes)
  await writeJson(where.layers, plan)
  return plan
}

/** Removes as many layers as the student lacks, one by one, each time the one whose loss costs least on average over the capabilities. */
async function planRemoval(run: NiwtRun, teacher: Decoder, probes: readonly Batch[]): Promise<LayerPlan> {
  const { layers } = teacher.config
  const wanted = layers - run.settings.student.layers
  const removed = new Set<number>()
  const cost: number[] = []
  while (removed.size < wanted) {
    const open = Array.from({ length: layers }, (_, layer) => layer).filter((layer) => !removed.has(layer))
    const totals = new Float64Array(layers)
    for (const probe of probes) {
      using ablation = new Ablation(teacher, probe)
      if (removed.size > 0) ablation.skip(removed)
      for (const layer of open) totals[layer] += (await ablation.cost(layer)) / probes.length
    }
    const next = open.reduce((best, layer) => (totals[layer] < totals[best] ? layer : best))
    removed.add(next)
    cost.push(totals[next])
    run.onProgress({ task: 'layer importance', done: removed.size, total: wanted, unit: 'layers' })
  }
  return { removal: [...removed], cost }
}
