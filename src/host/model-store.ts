import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { UsageError } from '../core/errors.ts'
import { cachePath } from './cache.ts'
import { removeFolder, sha256, writeJson } from './files.ts'
import { isAlive } from './process-alive.ts'

/** One file of a pulled model. */
export interface StoredFile {
  readonly name: string
  readonly bytes: number
  readonly sha256: string
}

/** A model in the cache. */
export interface StoredModel {
  /** owner/name, owner/name:file.gguf, a URL, or the name of a loose file. */
  readonly id: string
  /** Where it came from. */
  readonly from: string
  /** The hub's commit. */
  readonly commit?: string
  readonly files: readonly StoredFile[]
  /** When, in ISO 8601. */
  readonly pulledAt: string
  /** What opens it: a folder, or a GGUF file. */
  readonly path: string
}

/** A pull that was not finished. */
export interface UnfinishedPull {
  readonly id: string
  readonly bytes: number
}

const recordName = 'pulled.json'
const recordSchema = z.object({
  id: z.string().min(1),
  from: z.string(),
  commit: z.string().optional(),
  files: z
    .array(
      z.object({
        name: z.string().regex(/^[\w][\w.+-]*$/),
        bytes: z.number().int().nonnegative(),
        sha256: z.string(),
      }),
    )
    .min(1),
  pulledAt: z.string(),
})

/** Where pulled models are: `$NEXUS_MODELS`, or models in the cache. */
export function modelsFolder(): string {
  return process.env.NEXUS_MODELS ?? cachePath('models')
}

/** A folder's name for an id: no two ids share one, and none leads out of the cache. */
function slugOf(id: string): string {
  const plain = id.replaceAll(/[/:]/g, '--')
  const safe = /^[\w][\w.-]*$/.test(plain) && !/^https?--/.test(plain)
  const name = safe ? plain : (/[\w][\w.-]*$/.exec(id)?.[0] ?? 'model')
  return `${name.slice(-100)}--${sha256(id).slice(0, 8)}`
}

const finishedFolder = (id: string) => join(modelsFolder(), slugOf(id))
const incomingFolder = (id: string) => join(modelsFolder(), '.incoming', slugOf(id))

/** The models in the cache, by id: pulled ones, and GGUF files that lie there. Broken records are left out. */
export async function listStored(): Promise<StoredModel[]> {
  const models: StoredModel[] = []
  for (const entry of await entriesOf(modelsFolder())) {
    const path = join(modelsFolder(), entry.name)
    if (entry.isDirectory()) {
      const model = await readRecord(path)
      if (model) models.push(model)
    } else if (entry.isFile() && entry.name.endsWith('.gguf')) {
      const { size, mtime } = await stat(path)
      const files = [{ name: entry.name, bytes: size, sha256: '' }]
      models.push({ id: entry.name, from: path, files, pulledAt: mtime.toISOString(), path })
    }
  }
  return models.sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** The pulls that were begun and not finished. */
export async function listUnfinished(): Promise<UnfinishedPull[]> {
  const found: UnfinishedPull[] = []
  const root = join(modelsFolder(), '.incoming')
  for (const entry of await entriesOf(root)) {
    const folder = join(root, entry.name)
    const id = await readFile(join(folder, 'id'), 'utf8').catch(() => undefined)
    if (id === undefined) continue
    let bytes = 0
    for (const { name } of await entriesOf(folder)) bytes += await stat(join(folder, name)).then(({ size }) => size)
    found.push({ id, bytes })
  }
  return found
}

async function entriesOf(folder: string) {
  return readdir(folder, { withFileTypes: true }).catch((error: { code?: string }) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
}

/** The model that `folder` holds, if its record is whole and its files have the lengths that it says. */
async function readRecord(folder: string): Promise<StoredModel | undefined> {
  const text = await readFile(join(folder, recordName), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  try {
    const record = recordSchema.parse(JSON.parse(text))
    for (const { name, bytes } of record.files) if ((await stat(join(folder, name))).size !== bytes) return undefined
    const [{ name }] = record.files
    const single = record.files.length === 1 && name.endsWith('.gguf')
    return { ...record, path: single ? join(folder, name) : folder }
  } catch {
    // What cannot be read is pulled again: it is a cache.
    return undefined
  }
}

/**
 * The model in the cache that a name means, if there is one.
 * @throws UsageError when it can mean several.
 */
export async function findByName(name: string): Promise<StoredModel | undefined> {
  return pick(name, await listStored())
}

/** The model of exactly this id, if it is in the cache. */
export async function findStored(id: string): Promise<StoredModel | undefined> {
  return (await listStored()).find((model) => model.id === id)
}

/** A place where one model's files gather until all are there. */
export interface Incoming extends AsyncDisposable {
  readonly folder: string
  /** Puts the files in their place in the cache, instead of an older model of the same id. */
  finish(record: Omit<StoredModel, 'path' | 'pulledAt'>): Promise<StoredModel>
}

/**
 * Opens the place for the files of `id`; what an earlier, unfinished pull left is still there.
 * @throws UsageError when another process has it open.
 */
export async function openIncoming(id: string): Promise<Incoming> {
  const folder = incomingFolder(id)
  const lock = join(folder, 'lock')
  await mkdir(folder, { recursive: true })
  const holder = Number(await readFile(lock, 'utf8').catch(() => '0'))
  if (holder > 0 && holder !== process.pid && isAlive(holder))
    throw new UsageError(`Cannot pull ${id}: process ${holder} is pulling it`)
  await rm(lock, { force: true })
  const file = await open(lock, 'wx').catch((error: { code?: string }) => {
    throw error.code === 'EEXIST' ? new UsageError(`Cannot pull ${id}: another process is pulling it`) : error
  })
  await file.writeFile(String(process.pid)).finally(() => file.close())
  const note = await open(join(folder, 'id'), 'w')
  await note.writeFile(id).finally(() => note.close())
  return {
    folder,
    async finish(record) {
      const pulledAt = new Date().toISOString()
      const keep = new Set(record.files.map(({ name }) => name))
      for (const { name } of await entriesOf(folder))
        if (!keep.has(name)) await rm(join(folder, name), { recursive: true })
      await writeJson(join(folder, recordName), { ...record, pulledAt })
      const place = finishedFolder(id)
      const old = `${folder}.old`
      await removeFolder(old)
      if (existsSync(place)) await rename(place, old)
      await rename(folder, place)
      await removeFolder(old)
      return (await readRecord(place))!
    },
    async [Symbol.asyncDispose]() {
      await rm(lock, { force: true })
    },
  }
}

/**
 * Deletes a model, finished or not, that a name means.
 * @returns its id and the bytes that became free.
 * @throws UsageError when there is none, or several.
 */
export async function removeStored(name: string): Promise<{ id: string; bytes: number }> {
  const model = pick(name, await listStored())
  if (model) {
    const loose = model.path.endsWith('.gguf') && model.path === join(modelsFolder(), model.id)
    const place = loose ? model.path : finishedFolder(model.id)
    const away = join(modelsFolder(), '.incoming', `${sha256(model.id).slice(0, 8)}.removed`)
    await mkdir(join(modelsFolder(), '.incoming'), { recursive: true })
    await removeFolder(away)
    await rename(place, away)
    await removeFolder(away)
    await removeFolder(incomingFolder(model.id))
    return { id: model.id, bytes: bytesOf(model) }
  }
  const unfinished = (await listUnfinished()).find(({ id }) => id === name)
  if (!unfinished) throw new UsageError(`There is no pulled model ${name}. See: nexus cache ls`)
  await removeFolder(incomingFolder(unfinished.id))
  return unfinished
}

/** Bytes of a model's files. */
export function bytesOf({ files }: Pick<StoredModel, 'files'>): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** The one model that `name` means: its id, its id without file or owner, or its file's name. */
function pick(name: string, models: readonly StoredModel[]): StoredModel | undefined {
  const wanted = name.toLowerCase()
  const names = ({ id, path, from }: StoredModel) => {
    const repository = id.replace(/:[^/]*$/, '')
    const file = path.split(/[\\/]/).at(-1)!
    const short = repository.split('/').at(-1)!
    return [[id, from], [repository], [short, file, file.replace(/\.gguf$/, '')]]
  }
  for (const level of [0, 1, 2]) {
    const found = models.filter((model) => names(model)[level].some((text) => text.toLowerCase() === wanted))
    if (found.length > 1)
      throw new UsageError(`${name} can mean several pulled models: ${found.map(({ id }) => id).join(', ')}`)
    if (found.length === 1) return found[0]
  }
  return undefined
}

/**
 * The path of a model that a person names: a path as it stands, or the name of a pulled model. Needs no network.
 * @throws UsageError when it is neither, saying how to get it.
 */
export async function resolveModel(name: string): Promise<string> {
  if (existsSync(name)) return resolve(name)
  const model = await findByName(name)
  if (model) return model.path
  // What a person put beside the pulled ones.
  const beside = join(modelsFolder(), name)
  if (!/[/\\]/.test(name) && existsSync(beside)) return beside
  const none = `There is no model ${name}: no such file or folder, and none that was pulled.`
  // What can only be a path cannot be pulled.
  throw new UsageError(/^[./~]|\\|\.(gguf|safetensors)$/i.test(name) ? none : `${none} Get it with: nexus pull ${name}`)
}
