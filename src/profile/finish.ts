import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { InterruptedError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { exists, readBytes, writeFileAtomic } from '../host/files.ts'
import { WorkerPool } from '../host/worker-pool.ts'
import type { Decoder } from '../models/decoder.ts'
import type { AnyPcaState } from '../pca/pca-state.ts'
import type { RankReport } from '../pca/rank.ts'
import { deriveOutput } from './derive.ts'
import { finishSite, type SiteResult } from './finish-site.ts'
import { type Site, sitesOf } from './sites.ts'

/** Beside this file: a .ts in a clone, a .js in the package. */
const siteWorker = new URL(import.meta.url.replace(/finish(?=\.[jt]s$)/, 'site-worker'))

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
  // Where a bundler left the thread's file out, sites are finished in place.
  await using pool = exists(fileURLToPath(siteWorker)) ? new WorkerPool(siteWorker) : undefined
  for (let layer = 0; layer < layers; layer++) {
    const path = join(folder, `layer-${layer}.safetensors`)
    const before = exists(path)
    if (!before && signal?.aborted)
      throw new InterruptedError(`Stopped ${task} at layer ${layer} of ${layers}; it goes on from there`)
    if (!before) {
      const own = all.filter((site) => site.layer === layer)
      await writeFileAtomic(path, await finishLayer(options, pool, own))
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

/** The GPU derives states one after another, while threads finish those that are there. */
async function finishLayer(
  options: FinishOptions,
  pool: WorkerPool | undefined,
  sites: readonly Site[],
): Promise<Uint8Array> {
  const results: Promise<SiteResult>[] = []
  const names: string[] = []
  const rows: Record<string, number> = {}
  const running = new Set<Promise<unknown>>()
  const finish = async ({ name, centred }: Site, state: AnyPcaState) => {
    rows[name] = state.count
    // No more states in memory than one in work and one in line for each thread.
    while (pool && running.size >= 2 * pool.size) await Promise.race(running)
    const work = { name, centred, state }
    const result = pool ? pool.run<SiteResult>(work, buffersOf(state)) : Promise.resolve(finishSite(work))
    names.push(name)
    results.push(result)
    const ended: Promise<unknown> = result.catch(() => undefined).then(() => running.delete(ended))
    running.add(ended)
  }
  for (const site of sites) {
    if (site.from) continue
    const state = await options.state(site)
    for (const output of sites)
      if (output.from?.site === site.name)
        await finish(output, await deriveOutput(options.decoder, site.layer, output.from.linear, state))
    // Last, since it moves to the thread.
    await finish(site, state)
  }
  const done = await Promise.all(results)
  // Files have the order of sites, each with its outputs behind it, whatever was done first.
  const order = sites.flatMap((site) =>
    site.from ? [] : [site.name, ...sites.flatMap(({ name, from }) => (from?.site === site.name ? [name] : []))],
  )
  const at = order.map((name) => names.indexOf(name))
  const tensors = new Map(at.flatMap((i) => done[i].tensors))
  const ranks = Object.fromEntries(at.map((i) => [names[i], done[i].rank]))
  const ordered = Object.fromEntries(order.map((name) => [name, rows[name]]))
  return writeSafetensors(tensors, { facts: JSON.stringify({ ranks, rows: ordered }) })
}

/** The buffers of a state, each once. */
function buffersOf(state: AnyPcaState): ArrayBuffer[] {
  const arrays = Object.values(state).filter((part) => part instanceof Float64Array)
  return [...new Set(arrays.map(({ buffer }) => buffer as ArrayBuffer))]
}
