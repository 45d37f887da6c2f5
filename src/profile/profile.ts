import { join } from 'node:path'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { writeSafetensors } from '../formats/safetensors.ts'
import type { Tokenizer } from '../formats/tokenizer.ts'
import { exists, readJson, removeFolder, writeFileAtomic, writeJson } from '../host/files.ts'
import type { Decoder } from '../models/decoder.ts'
import { normaliseHeadImportance } from '../pca/head-importance.ts'
import { savePcaState } from '../pca/state-file.ts'
import { snapshotState } from '../pca/streaming-pca.ts'
import { type Batch, batchOf, padRows, type Row } from '../train/batch.ts'
import { Ablation, keyLayers, layersToConfirm, spearman } from './ablate.ts'
import { type CollectFacts, collectPass } from './collect.ts'
import { type Finished, finishLayers } from './finish.ts'
import { addHeadImportance } from './heads.ts'
import { batchesOf } from './samples.ts'
import type { Profile } from './schema.ts'
import { type CollectionPlan, planCollection, type Site, sitesOf } from './sites.ts'
import { SnapshotFile } from './snapshot-file.ts'

/** How much is measured. */
export interface ProfileSettings {
  /** Samples a batch, fewer where they are long. */
  readonly batch: number
  /** Tokens that a PCA takes in at once, from as many batches as they need; they wait on the GPU. */
  readonly pooled: number
  /** Operations for the PCAs, as a share of the forward pass's. */
  readonly share: number
  /** Bytes on the GPU for the PCAs of one pass. */
  readonly memory: number
  /** Samples that head importance is measured on. */
  readonly headSamples: number
  /** Layers that are confirmed by ablation, half with the highest and half with the lowest scores. */
  readonly ablate: number
  /** Most tokens of held-out items that ablation is measured on. */
  readonly heldOutTokens: number
  /** Batches between two saves; 0 saves every two minutes. */
  readonly saveEvery: number
  /** Keeps what merging needs. */
  readonly keepState: boolean
}

/** What a profile has unless told. */
export const profileDefaults: ProfileSettings = {
  ...{ batch: 8, pooled: 512, share: 0.11, memory: 2 ** 31, headSamples: 32, ablate: 12, heldOutTokens: 512 },
  ...{ saveEvery: 0, keepState: false },
}

/** Most tokens of a batch, which keeps its memory small. */
const mostBatchTokens = 8192
/** Most samples of a backward pass, which keeps every activation. */
const mostBackwardRows = 4

/** What {@link profileCapability} works with. */
export interface ProfileWork {
  readonly decoder: Decoder
  readonly tokenizer: Tokenizer
  readonly teacher: Profile['teacher']
  readonly capability: string
  readonly description: string
  readonly dataHash: string
  /** Rows of the samples. */
  readonly samples: readonly Row[]
  readonly heldOut: readonly Row[]
  readonly settings: ProfileSettings
  /** Where the profile goes: `…/profiles/<teacher>/<capability>`. */
  readonly folder: string
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** What is added up over samples, before anything is divided: what merging adds. */
export interface ProfileTotals {
  readonly samples: number
  readonly stride: number
  readonly counted: number
  readonly methods: CollectionPlan['methods']
  readonly cosines: readonly number[]
  readonly outliers: CollectFacts['outliers']
  readonly rawOutputs: CollectFacts['rawOutputs']
  readonly heads: readonly (readonly number[])[]
  readonly ablation: readonly (number | null)[]
  readonly heldOutTokens: number
}

/** Operations of a forward pass for a token of a batch, without the head. */
export function forwardFlops(decoder: Decoder, { rows, tokens }: Batch): number {
  const { cost } = decoder.gpu.plan((step) => {
    decoder.hidden(step, step.upload('u32', [rows, tokens], new Uint32Array(rows * tokens)))
  })
  return cost.flops / (rows * tokens)
}

/**
 * Profiles a teacher on the samples of one capability. Everything that was done is on disk at short intervals, so a run
 * that was stopped, in whatever way, goes on where it was, to the same files. Activations stay on the GPU.
 * @throws InterruptedError when the signal is aborted.
 */
export async function profileCapability(work: ProfileWork): Promise<Profile> {
  const { decoder, settings, folder, samples } = work
  const part = join(folder, 'partial')
  const longest = Math.max(...samples.map(({ weights }) => weights.length))
  const batches = batchesOf(samples, Math.max(1, Math.min(settings.batch, Math.floor(mostBatchTokens / longest))))
  const flops = forwardFlops(decoder, batches[0])
  const plan = planCollection(decoder.config, { ...settings, forwardFlops: flops })
  const passes: CollectFacts[] = []
  const pathOf = (pass: number) => join(part, `pass-${pass}.safetensors`)
  for (const [pass] of plan.passes.entries()) {
    const name = plan.passes.length === 1 ? '' : ` pass ${pass + 1} of ${plan.passes.length}`
    const task = `profile ${work.capability}${name}`
    passes.push(await collectPass({ ...work, ...settings, batches, plan, pass, path: pathOf(pass), task }))
  }
  const heads = await measureHeads(work, part)
  const [first] = passes
  const scores = first.cosines.map((sum) => 1 - sum / first.counted)
  const { ablation, heldOutTokens } = await measureAblation(work, part, scores)
  const totals: ProfileTotals = {
    ...{ samples: samples.length, stride: plan.stride, counted: first.counted, methods: plan.methods },
    ...{ cosines: first.cosines, outliers: first.outliers, rawOutputs: first.rawOutputs },
    ...{ heads, ablation, heldOutTokens },
  }
  const passOf = new Map(plan.passes.flatMap((names, pass) => names.map((name) => [name, pass] as const)))
  const state = async ({ name, dimension }: Site) => {
    const pass = passOf.get(name)!
    await using file = (await SnapshotFile.open(pathOf(pass)))!
    return snapshotState(dimension, { counters: passes[pass].counters[name], tensors: await file.tensors(name) })
  }
  if (settings.keepState) {
    for (const site of sitesOf(decoder.config))
      if (!site.from && !exists(statePath(folder, site.name)))
        await writeFileAtomic(statePath(folder, site.name), savePcaState(await state(site)))
    await writeJson(join(folder, 'state', 'totals.json'), totals)
  }
  const finished = await finishLayers({ ...work, folder: part, task: `ranks of ${work.capability}`, state })
  const profile = await writeProfile(folder, profileOf(work, decoder, totals, finished), finished)
  await removeFolder(part)
  return profile
}

/** Where the state of a site is kept for merging. */
export function statePath(folder: string, site: string): string {
  return join(folder, 'state', `${site}.safetensors`)
}

/** profile.json from the sums. */
export function profileOf(
  {
    teacher,
    capability,
    description,
    dataHash,
  }: Pick<ProfileWork, 'teacher' | 'capability' | 'description' | 'dataHash'>,
  decoder: Decoder,
  totals: ProfileTotals,
  { ranks, rows }: Finished,
): Profile {
  const layerScores = totals.cosines.map((sum) => 1 - sum / totals.counted)
  const measured = totals.ablation.flatMap((kl, layer) => (kl === null ? [] : [{ layer, kl }]))
  const chosen = measured.map(({ layer }) => layerScores[layer])
  const correlation = spearman(
    chosen,
    measured.map(({ kl }) => kl),
  )
  const sites = Object.fromEntries(
    sitesOf(decoder.config).map(({ name, dimension, from }) => {
      const method = totals.methods[from?.site ?? name]
      return [name, { dimension, method, ...(from && { from: from.site }), rows: rows[name] }]
    }),
  )
  return {
    ...{ format: 'nexus-profile-1', capability, description, teacher },
    data: { hash: dataHash, tokens: totals.counted, stride: totals.stride },
    ...{ samples: totals.samples, sites, ranks: ranks as Profile['ranks'] },
    outliers: totals.outliers as Profile['outliers'],
    ...{ layerScores, ablation: [...totals.ablation], heldOutTokens: totals.heldOutTokens },
    ...{ keyLayers: keyLayers(measured), scoreCorrelation: correlation ?? null },
    headImportance: normaliseHeadImportance(totals.heads.map((layer) => Float64Array.from(layer))),
    rawOutputs: totals.rawOutputs as Profile['rawOutputs'],
  }
}

/** Writes profile.json last: where it is, the profile is whole. */
export async function writeProfile(folder: string, profile: Profile, { tensors }: Finished): Promise<Profile> {
  await writeFileAtomic(join(folder, 'pca.safetensors'), writeSafetensors(tensors))
  await writeJson(join(folder, 'profile.json'), profile)
  return profile
}

async function measureHeads(work: ProfileWork, part: string): Promise<number[][]> {
  const { decoder, settings, samples, signal, onProgress } = work
  const { layers, heads } = decoder.config
  const path = join(part, 'heads.json')
  const before = exists(path) ? ((await readJson(path)) as { done: number; totals: number[][] }) : undefined
  const totals = before
    ? before.totals.map((layer) => Float64Array.from(layer))
    : Array.from({ length: layers }, () => new Float64Array(heads))
  const size = Math.max(1, Math.min(mostBackwardRows, Math.floor(settings.batch / 2)))
  const batches = batchesOf(samples.slice(0, settings.headSamples), size)
  const task = `heads of ${work.capability}`
  for (let done = before?.done ?? 0; done < batches.length; done++) {
    if (signal?.aborted) throw new InterruptedError(`Stopped ${task} at batch ${done} of ${batches.length}`)
    await addHeadImportance(decoder, batches[done], totals)
    await writeJson(path, { done: done + 1, totals: totals.map((layer) => [...layer]) })
    onProgress({ task, done: done + 1, total: batches.length, unit: 'batches' })
  }
  return totals.map((layer) => [...layer])
}

/** Held-out items of at most so many tokens together, as one batch. */
export function heldOutBatch(rows: readonly Row[], mostTokens: number): Batch {
  const chosen: Row[] = []
  let longest = 0
  for (const row of rows) {
    longest = Math.max(longest, row.weights.length)
    if (chosen.length > 0 && longest * (chosen.length + 1) > mostTokens) break
    chosen.push(row)
  }
  return batchOf(padRows(chosen))
}

async function measureAblation(
  work: ProfileWork,
  part: string,
  scores: readonly number[],
): Promise<Pick<ProfileTotals, 'ablation' | 'heldOutTokens'>> {
  const { decoder, settings, signal, onProgress } = work
  const batch = heldOutBatch(work.heldOut, settings.heldOutTokens)
  const path = join(part, 'ablation.json')
  const costs = exists(path) ? ((await readJson(path)) as Record<string, number>) : {}
  const layers = layersToConfirm(scores, settings.ablate)
  const task = `ablation of ${work.capability}`
  if (layers.some((layer) => !(layer in costs))) {
    using ablation = new Ablation(decoder, batch)
    for (const [done, layer] of layers.entries()) {
      if (layer in costs) continue
      if (signal?.aborted) throw new InterruptedError(`Stopped ${task} at layer ${layer}; it goes on from there`)
      costs[layer] = await ablation.cost(layer)
      await writeJson(path, costs)
      onProgress({ task, done: done + 1, total: layers.length, unit: 'layers' })
    }
  }
  return { ablation: scores.map((_, layer) => costs[layer] ?? null), heldOutTokens: batch.total }
}
