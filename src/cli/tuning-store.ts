import { z } from 'zod'
import { fnv1a } from '../core/random.ts'
import { cachePath } from '../host/cache.ts'
import { exists, readJson, writeJson } from '../host/files.ts'
import { matmul, matmulStaged, matmulUnits } from '../kernels/wgsl.gen.ts'
import type { Gpu } from '../runtime/gpu.ts'

const fileSchema = z.record(z.string(), z.record(z.string(), z.string()))

/** Choices hold for one adapter and driver (both are in its description) and for the text of the kernels. */
function identity(gpu: Gpu): string {
  const text = JSON.stringify([matmul, matmulStaged, matmulUnits].map((kernel) => kernel.plain.source))
  const { vendor, architecture, description } = gpu.device.adapterInfo
  return `${vendor} ${architecture} ${description} ${fnv1a(text).toString(16)}`
}

/** The file of what was found, for all adapters. */
export const tuningPath = () => cachePath('tuning.json')

async function stored(): Promise<Record<string, Record<string, string>>> {
  if (!exists(tuningPath())) return {}
  // What cannot be read is measured again: it is a cache.
  return fileSchema.safeParse(await readJson(tuningPath()).catch(() => ({}))).data ?? {}
}

/** Takes up what `nexus tune` found on this adapter before, if it did. @returns whether it had. */
export async function loadTuning(gpu: Gpu): Promise<boolean> {
  const choices = (await stored())[identity(gpu)]
  for (const [work, name] of Object.entries(choices ?? {})) gpu.tuning.choose(work, name)
  return choices !== undefined
}

/** Remembers the choices of `gpu` for later runs on the same adapter. */
export async function saveTuning(gpu: Gpu): Promise<void> {
  await writeJson(tuningPath(), { ...(await stored()), [identity(gpu)]: gpu.tuning.toJSON() })
}
