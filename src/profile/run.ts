import { basename, join } from 'node:path'
import { UsageError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { exists, listNames, readJson, removeFolder, writeJson } from '../host/files.ts'
import { peakMemory } from '../host/peak-memory.ts'
import { Decoder } from '../models/decoder.ts'
import type { WeightStorage } from '../models/decoder-weights.ts'
import { modelHash } from '../models/model-hash.ts'
import { openModel } from '../models/open-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { dataCapability, encodingOf } from '../train/data-capability.ts'
import { mergeProfiles } from './merge.ts'
import { type ProfileSettings, profileCapability } from './profile.ts'
import { writeReport } from './report.ts'
import { chooseSamples } from './samples.ts'
import { type Profile, parseProfile } from './schema.ts'

/** What a profile of a teacher is asked to do. */
export interface ProfileRequest {
  readonly gpu: Gpu
  /** GGUF file or Hugging Face folder. */
  readonly teacher: string
  readonly capabilities: readonly { readonly name: string; readonly data: string }[]
  /** Rows a capability. */
  readonly samples: number
  /** Most tokens of a row. */
  readonly length: number
  readonly seed: number
  readonly storage: WeightStorage
  /** This machine's share of the samples. */
  readonly shard: { readonly index: number; readonly count: number }
  readonly settings: ProfileSettings
  /** `niwt_stage2_output/profiles/<teacher>/` is made in it. */
  readonly out: string
  /** Deletes what an earlier run left of these capabilities. */
  readonly fresh?: boolean
  readonly onProgress: OnProgress
  readonly signal?: AbortSignal
}

/** What a run took; beside the profile, since it is another each time. */
export interface ProfileMeasures {
  readonly capability: string
  readonly seconds: number
  /** Most bytes of memory that the process had by then. */
  readonly hostPeakBytes: number
  readonly gpuPeakBytes: number
  readonly bytesRead: number
}

/** Where the profiles of a teacher are. */
export function profilesFolder(out: string, teacher: string): string {
  return join(out, 'niwt_stage2_output', 'profiles', teacher)
}

/** The name of a teacher: that of its file or folder. */
export function teacherName(path: string): string {
  return basename(path).replace(/\.gguf$/i, '')
}

/**
 * Profiles a teacher on each capability; those that are done are not done again.
 * @throws RangeError when an earlier run of the same name was asked for something else; InterruptedError.
 */
export async function runProfile(request: ProfileRequest): Promise<{ folder: string; profiles: Profile[] }> {
  const { gpu, storage, settings, samples, length, seed, shard } = request
  await using model = await openModel(request.teacher)
  const { config, tokenizer } = model
  if (length > config.contextLength)
    throw new RangeError(`Cannot profile rows of ${length} tokens: the model's context is ${config.contextLength}`)
  const name = teacherName(request.teacher)
  const folder = profilesFolder(request.out, name)
  const hash = await modelHash(model)
  const { layers, heads, width } = config
  const teacher = { name, hash, storage, layers, heads, width }
  let decoder: Decoder | undefined
  const profiles: Profile[] = []
  try {
    for (const { name: capability, data } of request.capabilities) {
      const target = join(folder, capability)
      if (request.fresh) await removeFolder(target)
      const source = await dataCapability({ name: capability, data, encoding: encodingOf(model), length })
      const asked = {
        ...{ teacher: hash, storage, data: source.dataHash, samples, length, seed, shard },
        settings: { ...settings, saveEvery: undefined },
      }
      await expectSame(target, asked)
      if (exists(join(target, 'profile.json'))) {
        profiles.push(parseProfile(target, await readJson(join(target, 'profile.json'))))
        continue
      }
      const started = performance.now()
      const before = gpu.bytesRead
      decoder ??= await Decoder.open(gpu, model.weights, { ...request, storage })
      const peak = gpu.watchPeak()
      const profile = await profileCapability({
        ...{ decoder, tokenizer, teacher, capability, settings, folder: target },
        ...{ description: source.description, dataHash: source.dataHash },
        samples: chooseSamples(source.train, samples, seed, shard),
        heldOut: source.items(),
        onProgress: request.onProgress,
        ...(request.signal && { signal: request.signal }),
      })
      profiles.push(profile)
      const measures: ProfileMeasures = {
        ...{ capability, seconds: (performance.now() - started) / 1000 },
        hostPeakBytes: peakMemory(),
        ...{ gpuPeakBytes: peak(), bytesRead: gpu.bytesRead - before },
      }
      await writeJson(join(target, 'measures.json'), measures)
    }
  } finally {
    decoder?.[Symbol.dispose]()
  }
  await writeReport(folder)
  return { folder, profiles }
}

/**
 * Merges parts of a profile: of each capability that a part has, one profile of all its parts.
 * @param parts folders of capabilities, or folders of such folders.
 * @throws UsageError when a part has no state; RangeError when the teacher is another one than that of the parts.
 */
export async function runMerge(
  request: Pick<ProfileRequest, 'gpu' | 'teacher' | 'out' | 'onProgress' | 'signal'> & {
    readonly parts: readonly string[]
  },
): Promise<{ folder: string; profiles: Profile[] }> {
  const { gpu, onProgress, signal } = request
  const groups = new Map<string, string[]>()
  for (const part of request.parts) {
    const own = exists(join(part, 'profile.json'))
      ? [part]
      : (await listNames(part)).sort().flatMap((name) => {
          const folder = join(part, name)
          return exists(join(folder, 'profile.json')) ? [folder] : []
        })
    if (own.length === 0) throw new UsageError(`Cannot merge ${part}: there is no finished profile in it`)
    for (const folder of own) groups.set(basename(folder), [...(groups.get(basename(folder)) ?? []), folder])
  }
  await using model = await openModel(request.teacher)
  const hash = await modelHash(model)
  const folder = profilesFolder(request.out, teacherName(request.teacher))
  const profiles: Profile[] = []
  let decoder: Decoder | undefined
  try {
    for (const [capability, parts] of groups) {
      const path = join(parts[0], 'profile.json')
      const { teacher } = parseProfile(path, await readJson(path))
      if (teacher.hash !== hash)
        throw new RangeError(`Cannot merge ${parts[0]}: its teacher was another model than ${request.teacher}`)
      decoder ??= await Decoder.open(gpu, model.weights, { storage: teacher.storage as WeightStorage, onProgress })
      const work = { decoder, parts, folder: join(folder, capability), onProgress, ...(signal && { signal }) }
      profiles.push(await mergeProfiles(work))
    }
  } finally {
    decoder?.[Symbol.dispose]()
  }
  await writeReport(folder)
  return { folder, profiles }
}

async function expectSame(folder: string, asked: object): Promise<void> {
  const path = join(folder, 'request.json')
  if (!exists(path)) return writeJson(path, asked)
  const before = (await readJson(path)) as Record<string, unknown>
  for (const [name, value] of Object.entries(asked))
    if (JSON.stringify(before[name]) !== JSON.stringify(value))
      throw new RangeError(
        `Cannot go on with the profile in ${folder}: ${name} was ${JSON.stringify(before[name])} and is now ` +
          `${JSON.stringify(value)}. Give what it began with, another --out, or --fresh`,
      )
}
