import { cp, readdir, rm, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { InterruptedError, NetworkError, UsageError } from '../core/errors.ts'
import { byteProgress, type OnProgress } from '../core/progress.ts'
import { readGguf } from '../formats/gguf.ts'
import { readSafetensorsHeader } from '../formats/safetensors.ts'
import { parseShardIndex, shardIndexName } from '../formats/shards.ts'
import { download } from '../host/download.ts'
import { exists, FileSource, readJson, sha256OfFile } from '../host/files.ts'
import { type HubFile, hubEndpoint, hubFileUrl, hubToken, isHubId, listHubModel } from '../host/hub.ts'
import {
  findByName,
  findStored,
  type Incoming,
  openIncoming,
  type StoredFile,
  type StoredModel,
} from '../host/model-store.ts'

/** How a model is pulled. */
export interface PullOptions {
  /** The GGUF file to take, where a model has several: its name, or a part of it that only one has. */
  readonly file?: string
  /** Branch, tag or commit; main unless told. */
  readonly revision?: string
  /** What the file of a URL must hash to. */
  readonly sha256?: string
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
  /** Milliseconds before a cut connection is taken up again; see {@link download}. */
  readonly pause?: number
}

/** A model in the cache, and how it came there. */
export interface Pulled {
  readonly model: StoredModel
  /** fetched: from elsewhere; present: it was there already; offline: it was, and the hub cannot be reached. */
  readonly how: 'fetched' | 'present' | 'offline'
}

/** A file to take: its name in the cache, and where it is. */
interface Wanted extends Partial<HubFile> {
  readonly name: string
  readonly url: string
}

const besideWeights = /^(config|generation_config|tokenizer[\w.-]*|special_tokens_map)\.json$|^chat_template\.jinja$/
const safeName = /^[A-Za-z0-9_][\w.+-]*$/

/**
 * Brings a model into the cache: from the hub (owner/name), from a URL of a GGUF file, or from a path. What a stopped
 * pull left is used. Files are checked against what the hub says of them, and opened, before the model counts as there.
 * @throws NetworkError, ResourceError and InterruptedError as {@link download} does; UsageError when it is not clear
 *   which file is meant; SyntaxError when what came is no model.
 */
export async function pullModel(what: string, options: PullOptions = {}): Promise<Pulled> {
  if (exists(what)) return { model: await copyModel(what, options), how: 'fetched' }
  const url = /^https?:\/\//i.test(what) && URL.canParse(what) ? new URL(what) : undefined
  if (url) {
    const hub = hubPlace(url)
    return hub ? pullFromHub(hub.id, { ...options, ...hub.options }) : pullUrl(url, options)
  }
  const [, id, file] = /^([^:]+)(?::(.+))?$/.exec(what) ?? []
  if (!id || !isHubId(id))
    throw new UsageError(
      `Cannot pull ${what}: there is no such file or folder, and it is neither owner/name of the hub nor a URL`,
    )
  return pullFromHub(id, file === undefined ? options : { ...options, file })
}

/** The model and file that a URL of the hub means. */
function hubPlace(url: URL): { id: string; options: Pick<PullOptions, 'file' | 'revision'> } | undefined {
  const base = `${hubEndpoint()}/`
  if (!url.href.startsWith(base)) return undefined
  const [owner, name, kind, revision, ...file] = decodeURIComponent(url.href.slice(base.length).split(/[?#]/)[0])
    .split('/')
    .filter((part) => part !== '')
  const id = `${owner}/${name}`
  if (name === undefined || !isHubId(id)) return undefined
  if (kind === undefined) return { id, options: {} }
  if (!['resolve', 'blob', 'tree'].includes(kind) || revision === undefined) return undefined
  return { id, options: { revision, ...(file.length > 0 && { file: file.join('/') }) } }
}

async function pullUrl(url: URL, options: PullOptions): Promise<Pulled> {
  const name = decodeURIComponent(url.pathname.split('/').at(-1)!)
  if (!name.endsWith('.gguf') || !safeName.test(name))
    throw new UsageError(`Cannot pull ${url.href}: a URL must lead to a .gguf file; folders come from the hub`)
  const id = url.origin + url.pathname
  const stored = await findStored(id)
  if (stored && (options.sha256 === undefined || stored.files[0].sha256 === options.sha256.toLowerCase()))
    return { model: stored, how: 'present' }
  await using incoming = await openIncoming(id)
  const wanted = { name, url: url.href, ...(options.sha256 && { sha256: options.sha256.toLowerCase() }) }
  const files = await fetchAll(incoming, [wanted], options)
  return { model: await finish(incoming, { id, from: id, files }), how: 'fetched' }
}

async function pullFromHub(repository: string, options: PullOptions): Promise<Pulled> {
  let listing: Awaited<ReturnType<typeof listHubModel>>
  try {
    listing = await listHubModel(repository, options.revision, options.signal)
  } catch (error) {
    if (options.signal?.aborted) throw new InterruptedError(`Stopped pulling ${repository}.`)
    const id = options.file ? `${repository}:${basename(options.file)}` : repository
    const stored = error instanceof NetworkError ? await findByName(id) : undefined
    if (stored) return { model: stored, how: 'offline' }
    throw error
  }
  const { commit } = listing
  const gguf = chooseGguf(repository, listing.files, options.file)
  const id = gguf ? `${repository}:${gguf.name}` : repository
  const place = (file: HubFile, name = file.path): Wanted => ({
    ...file,
    name,
    url: hubFileUrl(repository, commit, file.path),
  })
  const stored = await findStored(id)
  if (stored?.commit === commit) return { model: stored, how: 'present' }
  await using incoming = await openIncoming(id)
  const wanted = gguf
    ? [place(gguf.file, gguf.name)]
    : await chooseFolder(
        repository,
        listing.files.map((file) => place(file)),
        incoming,
        options,
      )
  const files = await fetchAll(incoming, wanted, options, stored)
  return {
    model: await finish(incoming, { id, from: `${hubEndpoint()}/${repository}`, commit, files }),
    how: 'fetched',
  }
}

/**
 * The GGUF file to take, or nothing where the safetensors are to be taken.
 * @throws UsageError when that is not clear.
 */
function chooseGguf(
  id: string,
  files: readonly HubFile[],
  wanted: string | undefined,
): { file: HubFile; name: string } | undefined {
  const all = files.flatMap((file) => {
    const name = file.path.split('/').at(-1)!
    return name.endsWith('.gguf') && safeName.test(name) ? [{ file, name }] : []
  })
  const list = all.map(({ name, file }) => `  ${name} (${(file.bytes / 1e6).toFixed(0)} MB)`).join('\n')
  let found = all
  if (wanted === undefined) {
    if (files.some(({ path }) => path === 'model.safetensors' || path === shardIndexName)) return undefined
    if (all.length > 1) throw new UsageError(`Cannot pull ${id}: it has several files; choose one by --file:\n${list}`)
  } else {
    const lower = wanted.toLowerCase()
    const exact = all.filter(({ file, name }) => [file.path, name].some((text) => text.toLowerCase() === lower))
    found = exact.length > 0 ? exact : all.filter(({ file }) => file.path.toLowerCase().includes(lower))
    if (found.length !== 1)
      throw new UsageError(
        `Cannot pull ${id}: ${found.length === 0 ? 'no' : 'more than one'} GGUF file is called ${wanted}${list && `; it has:\n${list}`}`,
      )
  }
  if (found.length === 0) throw new UsageError(`Cannot pull ${id}: it has neither model.safetensors nor a GGUF file`)
  if (/-\d{5}-of-\d{5}\.gguf$/.test(found[0].name))
    throw new UsageError(`Cannot pull ${id}: ${found[0].name} is a part of a split GGUF file, which is not read`)
  return found[0]
}

/** The files of a Hugging Face folder that matter. The index of shards is fetched on the way, for it names them. */
async function chooseFolder(
  id: string,
  files: readonly Wanted[],
  incoming: Incoming,
  options: PullOptions,
): Promise<Wanted[]> {
  const named = new Map(files.map((file) => [file.name, file]))
  for (const name of ['config.json', 'tokenizer.json'])
    if (!named.has(name)) throw new UsageError(`Cannot pull ${id}: it has no ${name}`)
  const beside = files.filter(({ name }) => besideWeights.test(name))
  const index = named.get(shardIndexName)
  if (!index) return [...beside, named.get('model.safetensors')!]
  await fetchAll(incoming, [index], options)
  const shards = [...new Set(parseShardIndex(await readJson(join(incoming.folder, shardIndexName))).values())]
  return [
    ...beside,
    index,
    ...shards.map((name) => {
      const shard = named.get(name)
      if (!shard) throw new UsageError(`Cannot pull ${id}: ${shardIndexName} names ${name}, which it lacks`)
      return shard
    }),
  ]
}

/** Fetches files that are not there yet; unchanged ones of an older pull are copied. */
async function fetchAll(
  incoming: Incoming,
  wanted: readonly Wanted[],
  { onProgress, signal, pause }: PullOptions,
  older?: StoredModel,
): Promise<StoredFile[]> {
  const files: StoredFile[] = []
  for (const { name, url, bytes, sha256, gitBlob } of wanted) {
    if (signal?.aborted) throw new InterruptedError('Stopped; the next pull goes on from there.')
    const path = join(incoming.folder, name)
    const same = sha256 && older?.files.some((file) => file.name === name && file.sha256 === sha256)
    if (same && !exists(path)) await cp(join(older!.path, name), path)
    const found = exists(path) ? { bytes: (await stat(path)).size, sha256: await sha256OfFile(path) } : undefined
    if (found && sha256 !== undefined && found.sha256 === sha256) {
      files.push({ name, ...found })
      continue
    }
    await rm(path, { force: true })
    const onBytes = (done: number, total = done + 1) => onProgress?.(byteProgress(`pull ${name}`, done, total))
    const expected = { ...(bytes !== undefined && { bytes }), ...(sha256 && { sha256 }), ...(gitBlob && { gitBlob }) }
    const token = hubToken()
    const fetched = await download(url, path, {
      ...expected,
      onBytes,
      ...(token && { token }),
      ...(signal && { signal }),
      ...(pause !== undefined && { pause }),
    })
    files.push({ name, ...fetched })
  }
  return files
}

/** Opens what came, so that a page of HTML or a broken file never counts as a model, and puts it in its place. */
async function finish(incoming: Incoming, record: Parameters<Incoming['finish']>[0]): Promise<StoredModel> {
  for (const { name } of record.files) {
    const path = join(incoming.folder, name)
    if (!/\.(gguf|safetensors)$/.test(name)) continue
    await using source = await FileSource.open(path)
    try {
      await (name.endsWith('.gguf') ? readGguf(source) : readSafetensorsHeader(source))
    } catch (error) {
      await rm(path, { force: true })
      throw new SyntaxError(
        `${record.from} gave a ${name} that is none, and it was deleted: ${(error as Error).message}`,
      )
    }
  }
  return incoming.finish(record)
}

async function copyModel(path: string, { onProgress, signal }: PullOptions): Promise<StoredModel> {
  const from = resolve(path)
  const isFolder = (await stat(from)).isDirectory()
  const names = isFolder
    ? (await readdir(from)).filter((name) => besideWeights.test(name) || /\.safetensors(\.index\.json)?$/.test(name))
    : [basename(from)]
  if (isFolder ? !names.includes('config.json') : !from.endsWith('.gguf'))
    throw new UsageError(`Cannot pull ${path}: it is neither a .gguf file nor a folder with config.json`)
  const wrong = names.find((name) => !safeName.test(name))
  if (wrong) throw new UsageError(`Cannot pull ${path}: ${JSON.stringify(wrong)} is no name for a file of a model`)
  const id = basename(from)
  await using incoming = await openIncoming(id)
  const files: StoredFile[] = []
  for (const [i, name] of names.entries()) {
    if (signal?.aborted) throw new InterruptedError(`Stopped copying ${path}.`)
    onProgress?.({ task: `copy ${id}`, unit: 'files', done: i, total: names.length })
    const copy = join(incoming.folder, name)
    await cp(join(isFolder ? from : join(from, '..'), name), copy)
    files.push({ name, bytes: (await stat(copy)).size, sha256: await sha256OfFile(copy) })
  }
  onProgress?.({ task: `copy ${id}`, unit: 'files', done: names.length, total: names.length })
  return finish(incoming, { id, from, files })
}
