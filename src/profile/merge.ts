import { join } from 'node:path'
import { UsageError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { exists, readBytes, readJson, removeFolder, writeFileAtomic, writeJson } from '../host/files.ts'
import type { Decoder } from '../models/decoder.ts'
import { type AnyPcaState, mergePcaStates } from '../pca/pca-state.ts'
import { loadPcaState, savePcaState } from '../pca/state-file.ts'
import { finishLayers } from './finish.ts'
import { type ProfileTotals, profileOf, statePath, writeProfile } from './profile.ts'
import { type Profile, parseProfile } from './schema.ts'
import type { Site } from './sites.ts'

/** What {@link mergeProfiles} works with. */
export interface MergeWork {
  /** The teacher that all parts were made of: outputs of linear layers are made of its weights. */
  readonly decoder: Decoder
  /** Folders of one capability, each with its state. */
  readonly parts: readonly string[]
  /** Where the merged profile goes, with its state, so that it can be merged again. */
  readonly folder: string
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

const rawOutputs = 50

/**
 * The profile of all samples of several parts, which were profiled apart: equal to one pass over them but for rounding.
 * Ablation is averaged over the held-out tokens of the parts.
 * @throws UsageError when a part has no state; RangeError when the parts are of other teachers or data.
 */
export async function mergeProfiles({ decoder, parts, folder, onProgress, signal }: MergeWork): Promise<Profile> {
  const profiles: Profile[] = []
  const totals: ProfileTotals[] = []
  for (const part of parts) {
    const path = join(part, 'profile.json')
    const saved = join(part, 'state', 'totals.json')
    if (!exists(path) || !exists(saved))
      throw new UsageError(`Cannot merge ${part}: it has no state. Profile it with --shard or --keep-state`)
    profiles.push(parseProfile(path, await readJson(path)))
    totals.push((await readJson(saved)) as ProfileTotals)
  }
  expectAlike(parts, profiles)
  const [first] = profiles
  const state = async ({ name }: Site): Promise<AnyPcaState> => {
    let merged: AnyPcaState | undefined
    for (const part of parts) {
      const own = loadPcaState(await readBytes(statePath(part, name)))
      merged = merged ? mergePcaStates(merged, own) : own
    }
    await writeFileAtomic(statePath(folder, name), savePcaState(merged!))
    return merged!
  }
  const sum = mergeTotals(totals)
  const partial = join(folder, 'partial')
  const options = { decoder, folder: partial, task: `merge ${first.capability}`, state, onProgress }
  const finished = await finishLayers({ ...options, ...(signal && { signal }) })
  await writeJson(join(folder, 'state', 'totals.json'), sum)
  const facts = { teacher: first.teacher, capability: first.capability, description: first.description }
  const profile = profileOf({ ...facts, dataHash: first.data.hash }, decoder, sum, finished)
  await writeProfile(folder, profile, finished)
  await removeFolder(partial)
  return profile
}

/** Sums of all parts. */
export function mergeTotals(parts: readonly ProfileTotals[]): ProfileTotals {
  const [first] = parts
  const sum = (of: (part: ProfileTotals) => number) => parts.reduce((all, part) => all + of(part), 0)
  const heldOutTokens = sum((part) => part.heldOutTokens)
  return {
    samples: sum(({ samples }) => samples),
    stride: Math.max(...parts.map(({ stride }) => stride)),
    counted: sum(({ counted }) => counted),
    methods: first.methods,
    cosines: first.cosines.map((_, layer) => sum(({ cosines }) => cosines[layer])),
    // Of the first batch of the first part, as in one pass.
    outliers: first.outliers,
    rawOutputs: parts.flatMap((part) => part.rawOutputs).slice(0, rawOutputs),
    heads: first.heads.map((layer, l) => layer.map((_, h) => sum(({ heads }) => heads[l][h]))),
    ablation: first.ablation.map((_, layer) => {
      const measured = parts.filter(({ ablation }) => ablation[layer] !== null)
      const weight = measured.reduce((all, part) => all + part.heldOutTokens, 0)
      if (weight === 0) return null
      return measured.reduce((all, part) => all + part.ablation[layer]! * part.heldOutTokens, 0) / weight
    }),
    heldOutTokens,
  }
}

function expectAlike(parts: readonly string[], profiles: readonly Profile[]): void {
  const facts = ({ capability, teacher, data, sites }: Profile) => ({
    capability,
    teacher: `${teacher.hash} as ${teacher.storage}`,
    data: data.hash,
    method: JSON.stringify(Object.values(sites).map(({ method }) => method)),
  })
  const first: Readonly<Record<string, string>> = facts(profiles[0])
  for (const [i, profile] of profiles.entries())
    for (const [name, value] of Object.entries(facts(profile)))
      if (first[name] !== value)
        throw new RangeError(`Cannot merge ${parts[0]} and ${parts[i]}: ${name} is ${first[name]} and ${value}`)
}
