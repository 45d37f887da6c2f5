import type { ByteSource } from './byte-source.ts'
import {
  byteLengthOf,
  readSafetensorsHeader,
  type SafetensorsEntry,
  type SafetensorsHeader,
  type TensorOutline,
} from './safetensors.ts'
import { type CpuTensor, elementBytes, toFloat32 } from './tensor.ts'
import type { WeightFile } from './weights.ts'

/** Name of the file that says which shard holds which tensor. */
export const shardIndexName = 'model.safetensors.index.json'

/** Tensors that lie in one safetensors file, or in several. */
export class SafetensorsFiles {
  /** Every tensor by name. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>
  readonly metadata: Readonly<Record<string, string>>
  readonly #sources: ReadonlyMap<string, ByteSource>

  private constructor(files: readonly (readonly [ByteSource, SafetensorsHeader])[]) {
    const sources = new Map<string, ByteSource>()
    const entries = new Map<string, SafetensorsEntry>()
    for (const [source, header] of files)
      for (const [name, entry] of header.entries) {
        if (entries.has(name)) throw new SyntaxError(`Cannot read the model: two shards hold ${JSON.stringify(name)}`)
        entries.set(name, entry)
        sources.set(name, source)
      }
    this.entries = entries
    this.metadata = files[0]?.[1].metadata ?? {}
    this.#sources = sources
  }

  /** One file. @throws SyntaxError naming what is wrong with it. */
  static async single(source: ByteSource): Promise<SafetensorsFiles> {
    return new SafetensorsFiles([[source, await readSafetensorsHeader(source)]])
  }

  /**
   * The files that an index names.
   * @param index the parsed index file.
   * @param open opens a file that lies beside the index.
   * @throws SyntaxError when the index is none, or does not fit the files; each names the file.
   */
  static async sharded(index: unknown, open: (file: string) => Promise<ByteSource>): Promise<SafetensorsFiles> {
    const places = parseShardIndex(index)
    const files: [ByteSource, SafetensorsHeader][] = []
    for (const file of new Set(places.values())) {
      const source = await open(file)
      try {
        files.push([source, await readSafetensorsHeader(source)])
      } catch (error) {
        throw new SyntaxError(`${file}: ${(error as Error).message}`)
      }
      const { entries } = files.at(-1)![1]
      for (const [name, place] of places)
        if (place === file && !entries.has(name))
          throw new SyntaxError(`Cannot read ${shardIndexName}: it says that ${file} holds ${name}, which it does not`)
      for (const name of entries.keys())
        if (places.get(name) !== file)
          throw new SyntaxError(`Cannot read ${shardIndexName}: ${file} holds ${name}, which the index puts elsewhere`)
    }
    return new SafetensorsFiles(files)
  }

  /**
   * A tensor, or a window of its rows (counted along the first dimension).
   * @throws RangeError when there is none of that name, or no such rows.
   */
  async read(name: string, first = 0, count?: number): Promise<CpuTensor> {
    const entry = this.entries.get(name)
    if (!entry) throw new RangeError(`Cannot read ${name}: the file has no such tensor`)
    const { dtype, shape, offset, byteLength } = entry
    const source = this.#sources.get(name)!
    if (first === 0 && count === undefined) return { dtype, shape, data: await source.read(offset, byteLength) }
    const [rows = 1, ...rest] = shape
    const wanted = count ?? rows - first
    if (!Number.isInteger(first) || !Number.isInteger(wanted) || first < 0 || wanted < 0 || first + wanted > rows)
      throw new RangeError(`Cannot read rows ${first} to ${first + wanted} of ${name}: it has ${rows}`)
    const rowBytes = rest.reduce((size, dimension) => size * dimension, elementBytes[dtype])
    const data = await source.read(offset + first * rowBytes, wanted * rowBytes)
    return { dtype, shape: [wanted, ...rest], data }
  }

  /** The tensors as weights of a model, floats only. */
  weights(): WeightFile {
    const shapes = new Map([...this.entries].map(([name, { shape }]) => [name, shape]))
    return {
      scheme: 'hugging-face',
      shapes,
      rows: async (name, first, count) =>
        // A vector is one row here, and as many as it has elements to `read`.
        toFloat32(shapes.get(name)!.length < 2 ? await this.read(name) : await this.read(name, first, count)),
    }
  }
}

/**
 * The file of each tensor, from a parsed index file.
 * @throws SyntaxError when it is none, or names a file outside its folder.
 */
export function parseShardIndex(json: unknown): Map<string, string> {
  const fault = (reason: string) => new SyntaxError(`Cannot read ${shardIndexName}: ${reason}`)
  const map = (json as { weight_map?: unknown } | null | undefined)?.weight_map
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw fault('it has no weight_map')
  const places = new Map<string, string>()
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || !/^[\w-][\w.-]*\.safetensors$/.test(file))
      throw fault(`${JSON.stringify(name)} lies in ${JSON.stringify(file)}, which is not a safetensors file beside it`)
    places.set(name, file)
  }
  if (places.size === 0) throw fault('its weight_map is empty')
  return places
}

/** Which tensors go to which file, and the index to write beside them (none for a single file). */
export interface ShardPlan {
  readonly files: ReadonlyMap<string, readonly TensorOutline[]>
  /** Text of the index file. */
  readonly index?: string
}

/**
 * Splits tensors, in the order given, into files of at most `mostBytes` of weights; a larger tensor gets its own.
 * Names and index are those that Hugging Face's libraries write.
 * @param outlines tensors; those of an inner list stay together.
 * @param mostBytes 5 GB unless told.
 */
export function planShards(
  outlines: readonly (TensorOutline | readonly TensorOutline[])[],
  mostBytes = 5e9,
): ShardPlan {
  const shards: TensorOutline[][] = [[]]
  let [filled, totalBytes, totalParameters] = [0, 0, 0]
  for (const item of outlines) {
    const group = [item].flat() as TensorOutline[]
    const bytes = group.reduce((sum, { dtype, shape }) => sum + byteLengthOf(dtype, shape), 0)
    if (filled > 0 && filled + bytes > mostBytes) {
      shards.push([])
      filled = 0
    }
    shards.at(-1)!.push(...group)
    filled += bytes
    totalBytes += bytes
    for (const { dtype, shape } of group) totalParameters += byteLengthOf(dtype, shape) / elementBytes[dtype]
  }
  if (shards.length === 1) return { files: new Map([['model.safetensors', shards[0]]]) }
  const digits = (n: number) => String(n).padStart(5, '0')
  const files = new Map(
    shards.map((shard, i) => [`model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`, shard]),
  )
  const places = [...files].flatMap(([file, shard]) => shard.map(({ name }) => [name, file] as const))
  places.sort(([a], [b]) => (a < b ? -1 : 1))
  const metadata = { total_parameters: totalParameters, total_size: totalBytes }
  return { files, index: `${JSON.stringify({ metadata, weight_map: Object.fromEntries(places) }, null, 2)}\n` }
}
