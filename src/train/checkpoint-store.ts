import { join } from 'node:path'
import { z } from 'zod'
import {
  exists,
  listNames,
  readBytes,
  readJson,
  removeFolder,
  sha256,
  writeFileAtomic,
  writeJson,
} from '../host/files.ts'

const schema = z.object({
  version: z.literal(1),
  checkpoints: z.array(
    z.object({
      step: z.number().int().nonnegative(),
      file: z.string().regex(/^step-\d+\.safetensors$/),
      bytes: z.number().int().nonnegative(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      score: z.number().optional(),
    }),
  ),
})

/** One line of a store's index. */
export type CheckpointEntry = z.infer<typeof schema>['checkpoints'][number]

/** A checkpoint that was read and whose hash is right. */
export interface Checkpoint extends CheckpointEntry {
  readonly content: Uint8Array<ArrayBuffer>
}

/** What a {@link CheckpointStore} keeps. */
export interface CheckpointStoreOptions {
  /** How many of the newest are kept; 2 unless told, so that one damaged file loses little. */
  readonly keep?: number
}

/**
 * Checkpoints in a folder: a file each, and index.json, which names them with their sha256 and is written last. Whatever
 * moment the process is killed at, the index names whole files: a new file is complete before the index knows it, and an
 * old one is deleted after the index forgot it.
 */
export class CheckpointStore {
  readonly folder: string
  readonly #keep: number

  constructor(folder: string, { keep = 2 }: CheckpointStoreOptions = {}) {
    this.folder = folder
    this.#keep = Math.max(1, keep)
  }

  /** What the index names, oldest first; nothing where there is no index. @throws SyntaxError when it is damaged. */
  async entries(): Promise<CheckpointEntry[]> {
    const path = this.#path('index.json')
    if (!exists(path)) return []
    const read = schema.safeParse(await readJson(path))
    if (!read.success) throw new SyntaxError(`Cannot read ${path}: ${z.prettifyError(read.error)}`)
    return [...read.data.checkpoints].sort((x, y) => x.step - y.step)
  }

  /**
   * Adds the checkpoint taken after `step` steps, and lets go of those that are neither among the newest nor the best.
   * @param score what makes a checkpoint better the smaller it is; without one it is never the best.
   * @throws RangeError when the score is not finite; nothing is written then.
   */
  async save(step: number, content: Uint8Array, score?: number): Promise<void> {
    if (score !== undefined && !Number.isFinite(score))
      throw new RangeError(`Cannot save the checkpoint of step ${step}: its score is ${score}`)
    const file = `step-${String(step).padStart(8, '0')}.safetensors`
    await writeFileAtomic(this.#path(file), content)
    const entry = {
      step,
      file,
      bytes: content.length,
      sha256: sha256(content),
      ...(score === undefined ? {} : { score }),
    }
    const all = [...(await this.entries()).filter((other) => other.step < step), entry]
    const best = bestOf(all)
    const kept = all.filter((other, i) => i >= all.length - this.#keep || other === best)
    await writeJson(this.#path('index.json'), { version: 1, checkpoints: kept })
    await this.#sweep(new Set(kept.map(({ file }) => file)))
  }

  /** The newest checkpoint whose file is whole, or none. */
  async latest(): Promise<Checkpoint | undefined> {
    for (const entry of (await this.entries()).reverse()) {
      const found = await this.#read(entry)
      if (found) return found
    }
    return undefined
  }

  /** The checkpoint with the smallest score whose file is whole, the earliest of equals; none where none has a score. */
  async best(): Promise<Checkpoint | undefined> {
    let all = await this.entries()
    for (let entry = bestOf(all); entry; entry = bestOf(all)) {
      const found = await this.#read(entry)
      if (found) return found
      all = all.filter((other) => other !== entry)
    }
    return undefined
  }

  async #read(entry: CheckpointEntry): Promise<Checkpoint | undefined> {
    const path = this.#path(entry.file)
    if (!exists(path)) return undefined
    const content = await readBytes(path)
    return sha256(content) === entry.sha256 ? { ...entry, content } : undefined
  }

  /** Deletes what no index names: rotated checkpoints, and what a killed process left. */
  async #sweep(kept: ReadonlySet<string>): Promise<void> {
    for (const name of await listNames(this.folder))
      if (/^(step-\d+\.safetensors|index\.json\.\d+\.part)(\.\d+\.part)?$/.test(name) && !kept.has(name))
        await removeFolder(this.#path(name))
  }

  #path(name: string): string {
    return join(this.folder, name)
  }
}

function bestOf(entries: readonly CheckpointEntry[]): CheckpointEntry | undefined {
  let best: CheckpointEntry | undefined
  for (const entry of entries)
    if (entry.score !== undefined && (best === undefined || entry.score < best.score!)) best = entry
  return best
}
