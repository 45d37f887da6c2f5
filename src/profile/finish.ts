import { join } from 'node:path'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import { exists, readBytes, writeFileAtomic } from '../host/files.ts'
import type { Decoder } from '../models/decoder.ts'
import { type AnyPcaState, decompose, type Pca } from '../pca/pca-state.ts'
import { estimateStateRank, type RankReport } from '../pca/rank.ts'
import { deriveOutput } from './derive.ts'
import { type Site, sitesOf } from './sites.ts'

/** Components of a site that are kept. */
const keptComponents = 64

/** What {@link finishLayers} needs. */
export interface FinishOptions {
  readonly decoder: Decoder
  /** Where the layers that are done are kept. */
  readonly folder: string
  readonly task: string
  /** The state of a site that was collected. */
  state(site: Site): Promise<AnyPcaState>
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** Bases and spectra, and rank estimates, of all sites. */
export interface Finished {
  readonly tensors: ReadonlyMap<string, CpuTensor>
  readonly ranks: Readonly<Record<string, RankReport>>
  /** Rows by site. */
  readonly rows: Readonly<Record<string, number>>
}

/**
 * Makes bases, spectra and ranks of all sites, a layer at a time; what is done is on disk.
 * @throws InterruptedError between two layers when the signal is aborted.
 */
export async function finishLayers(options: FinishOptions): Promise<Finished> {
  const { decoder, folder, task, signal, onProgress } = options
  const { layers } = decoder.config
  const all = sitesOf(decoder.config)
  const tensors = new Map<string, CpuTensor>()
  const ranks: Record<string, RankReport> = {}
  const rows: Record<string, number> = {}
  for (let layer = 0; layer < layers; layer++) {
    const path = join(folder, `layer-${layer}.safetensors`)
    const before = exists(path)
    if (!before && signal?.aborted)
      throw new InterruptedError(`Stopped ${task} at layer ${layer} of ${layers}; it goes on from there`)
    if (!before) {
      const own = all.filter((site) => site.layer === layer)
      await writeFileAtomic(path, await finishLayer(options, own))
    }
    const done = parseSafetensors(await readBytes(path))
    for (const [name, tensor] of done.tensors) tensors.set(name, tensor)
    const facts = JSON.parse(done.metadata.facts) as { ranks: object; rows: object }
    Object.assign(ranks, facts.ranks)
    Object.assign(rows, facts.rows)
    if (!before) onProgress({ task, done: layer + 1, total: layers, unit: 'layers' })
  }
  return { tensors, ranks, rows }
}

async function finishLayer(options: FinishOptions, sites: readonly Site[]): Promise<Uint8Array> {
  const tensors = new Map<string, CpuTensor>()
  const ranks: Record<string, RankReport> = {}
  const rows: Record<string, number> = {}
  for (const site of sites) {
    if (site.from) continue
    const state = await options.state(site)
    finishSite(site, state, tensors, ranks)
    rows[site.name] = state.count
    for (const output of sites)
      if (output.from?.site === site.name) {
        const derived = await deriveOutput(options.decoder, site.layer, output.from.linear, state)
        finishSite(output, derived, tensors, ranks)
        rows[output.name] = derived.count
      }
  }
  return writeSafetensors(tensors, { facts: JSON.stringify({ ranks, rows }) })
}

function finishSite(
  { name, centred }: Site,
  state: AnyPcaState,
  tensors: Map<string, CpuTensor>,
  ranks: Record<string, RankReport>,
): void {
  const pca = decompose(state, { centred, components: keptComponents })
  ranks[name] = estimateStateRank(state, { centred, pca })
  store(tensors, name, pca)
}

/** Basis as f16, mean and spectrum as f32: nothing that grows with the number of tokens. */
function store(tensors: Map<string, CpuTensor>, name: string, { mean, eigenvalues, components }: Pca): void {
  const d = mean.length
  const kept = components.length / d
  const basis = Float64Array.from({ length: kept * d }, (_, i) => components[(i % d) * kept + Math.floor(i / d)])
  tensors.set(`${name}.basis`, cpuTensor('F16', [kept, d], basis))
  tensors.set(`${name}.mean`, cpuTensor('F32', [d], mean))
  tensors.set(`${name}.eigenvalues`, cpuTensor('F32', [eigenvalues.length], eigenvalues))
}
