import { join } from 'node:path'
import { Random } from '../core/random.ts'
import { exists, readJson, sha256, writeJson } from '../host/files.ts'
import { Decoder } from '../models/decoder.ts'
import { modelHash } from '../models/model-hash.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import { Ablation } from '../profile/ablate.ts'
import { heldOutBatch, profileCapability, profileDefaults } from '../profile/profile.ts'
import { writeReport } from '../profile/report.ts'
import { type Profile, parseProfile } from '../profile/schema.ts'
import { type Batch, type Row, trimRow } from '../train/batch.ts'
import { type NiwtRun, paths } from './run.ts'

/** Which layers to leave out first, by true ablation over all capabilities. */
export interface LayerPlan {
  /** Layers in the order in which they are removed, least missed first. */
  readonly removal: readonly number[]
  /** Mean KL in nats a token after each removal. */
  readonly cost: readonly number[]
}

/**
 * Stage 2: profiles the teacher, held in NF4, on samples of each capability, and chooses the layers that a student leaves
 * out. Activations stay on the GPU; what is written is bases, spectra and scores.
 */
export async function profileStage(run: NiwtRun): Promise<LayerPlan> {
  const where = paths(run.folder, run.teacherName)
  await using files = await openModel(run.teacherFolder)
  const {
    samples,
    storage = 'nf4',
    batch,
    share = 4,
    heldOutTokens = profileDefaults.heldOutTokens,
  } = run.settings.profile
  using decoder = await Decoder.open(run.gpu, files.weights, { storage })
  const teacher = await teacherFacts(run, files, storage)
  const profiles: Profile[] = []
  const probes: Batch[] = []
  for (const capability of run.teacherCapabilities ?? run.capabilities) {
    const random = new Random(run.seed + 1)
    const rows = Array.from({ length: samples }, () => trimRow(capability.row(random, run.settings.tokens)))
    const heldOut = [...rows].reverse()
    probes.push(heldOutBatch(heldOut, heldOutTokens))
    const folder = where.profile(capability.name)
    const path = join(folder, 'profile.json')
    profiles.push(
      exists(path)
        ? parseProfile(path, await readJson(path))
        : await profileCapability({
            ...{ decoder, tokenizer: files.tokenizer, teacher, samples: rows, heldOut, folder },
            ...{ capability: capability.name, description: capability.description, dataHash: hashOf(rows) },
            settings: {
              ...{ ...profileDefaults, batch, heldOutTokens, headSamples: Math.min(samples, 2 * batch) },
              share,
              // Of many layers removal measures by itself what leaving some out costs.
              ablate: teacher.layers <= fewLayers ? teacher.layers : 0,
            },
            onProgress: run.onProgress,
            ...(run.signal && { signal: run.signal }),
          }),
    )
  }
  await writeReport(join(where.layers, '..'))
  const plan = await planRemoval(run, decoder, profiles, probes)
  await writeJson(where.layers, plan)
  return plan
}

async function teacherFacts(run: NiwtRun, files: OpenModel, storage: string): Promise<Profile['teacher']> {
  const { layers, heads, width } = files.config
  return { name: run.teacherName, hash: await modelHash(files), storage, layers, heads, width }
}

function hashOf(rows: readonly Row[]): string {
  return sha256(JSON.stringify(rows.map(({ ids }) => Array.from(ids))))
}

const fewLayers = 12

/** How many layers are tried: all of few; of many twice as many as go, those with the lowest scores. */
export function mostTried(layers: number, removed: number): number {
  return layers <= fewLayers ? layers : Math.min(layers, 2 * removed)
}

/**
 * Removes as many layers as the student lacks, one by one, each time the one whose loss costs least on average over the
 * capabilities.
 */
async function planRemoval(
  run: NiwtRun,
  decoder: Decoder,
  profiles: readonly Profile[],
  probes: readonly Batch[],
): Promise<LayerPlan> {
  const { layers } = decoder.config
  const wanted = run.settings.student.backbone ? 0 : layers - run.settings.student.layers
  const score = (layer: number) => profiles.reduce((sum, { layerScores }) => sum + layerScores[layer], 0)
  const order = Array.from({ length: layers }, (_, layer) => layer).sort((a, b) => score(a) - score(b) || a - b)
  const candidates = order.slice(0, mostTried(layers, wanted)).sort((a, b) => a - b)
  const removed = new Set<number>()
  const cost: number[] = []
  const ablations: Ablation[] = []
  try {
    for (const probe of probes) ablations.push(new Ablation(decoder, probe))
    while (removed.size < wanted) {
      run.signal?.throwIfAborted()
      const totals = new Float64Array(layers)
      for (const ablation of ablations) {
        ablation.skip(removed)
        for (const layer of candidates)
          if (!removed.has(layer)) totals[layer] += (await ablation.cost(layer)) / ablations.length
      }
      const open = candidates.filter((layer) => !removed.has(layer))
      const next = open.reduce((best, layer) => (totals[layer] < totals[best] ? layer : best))
      removed.add(next)
      cost.push(totals[next])
      run.onProgress({ task: 'layer importance', done: removed.size, total: wanted, unit: 'layers' })
    }
  } finally {
    for (const ablation of ablations) ablation[Symbol.dispose]()
  }
  return { removal: [...removed], cost }
}
