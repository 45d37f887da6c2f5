import { join } from 'node:path'
import { z } from 'zod'
import { readSafetensorsHeader, writeSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor, elementBytes, toFloat32, toUint32 } from '../formats/tensor.ts'
import {
  exists,
  FileSource,
  readJson,
  removeFolder,
  sha256,
  sha256OfFile,
  writeFileAtomic,
  writeJson,
} from '../host/files.ts'

const columnSchema = z.object({
  name: z.string(),
  dtype: z.enum(['U8', 'U16', 'U32', 'F16']),
  /** Of one row. */
  shape: z.array(z.number().int().positive()),
})

const layoutSchema = z.object({
  capability: z.string(),
  /** Tokens of a row. */
  tokens: z.number().int().positive(),
  columns: z.array(columnSchema),
  /** sha256 of the settings and the teacher that the rows were made with. */
  settings: z.string(),
  /** sha256 of the tokenizer that the ids belong to. */
  tokenizer: z.string(),
})

const manifestSchema = layoutSchema.extend({
  version: z.literal(1),
  shards: z.array(
    z.object({
      file: z.string().regex(/^shard-\d{5}\.safetensors$/),
      rows: z.number().int().positive(),
      tokens: z.number().int().positive(),
      bytes: z.number().int().positive(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
})

/** One kind of number that a capture holds. */
export type CaptureColumn = z.infer<typeof columnSchema>

/** What all shards of a capture have in common. */
export type CaptureLayout = z.infer<typeof layoutSchema>

type Manifest = z.infer<typeof manifestSchema>
type Shard = Manifest['shards'][number]

/** Values of a shard's rows, by column. */
export type CaptureValues = ReadonlyMap<string, ArrayLike<number>>

const manifestFile = 'manifest.json'
const shardFile = (index: number) => `shard-${String(index).padStart(5, '0')}.safetensors`

/** Bytes a token of rows with these columns. */
export function bytesPerToken(tokens: number, columns: readonly CaptureColumn[]): number {
  return columns.reduce((sum, column) => sum + rowBytes(column), 0) / tokens
}

function rowBytes({ dtype, shape }: CaptureColumn): number {
  return shape.reduce((size, dimension) => size * dimension, elementBytes[dtype])
}

/** What {@link writeCapture} needs. */
export interface CaptureWork {
  readonly folder: string
  readonly layout: CaptureLayout
  /** Rows that the capture shall have, at least. */
  readonly rows: number
  /** Most bytes of a shard. */
  readonly shardBytes: number
  /** Makes the values of shard `index`: a function of the index and nothing before it. */
  make(index: number, rows: number): Promise<CaptureValues>
}

/**
 * Makes what a capture still lacks: shards that are missing or damaged again, and new ones behind them until there are
 * enough rows. A shard is on disk, whole, before the manifest names it, so a killed run loses the shard that it was making.
 * A capture of another layout is deleted first.
 * @returns the files that were made.
 */
export async function writeCapture({ folder, layout, rows, shardBytes, make }: CaptureWork): Promise<string[]> {
  const before = exists(join(folder, manifestFile)) ? await readManifest(folder) : undefined
  const same = before && sha256(JSON.stringify(layoutSchema.parse(before))) === sha256(JSON.stringify(layout))
  if (before && !same) await removeFolder(folder)
  const shards: Shard[] = same ? [...before.shards] : []
  const made: string[] = []
  const add = async (index: number, count: number) => {
    const values = await make(index, count)
    const tensors = new Map<string, CpuTensor>()
    for (const { name, dtype, shape } of layout.columns)
      tensors.set(name, cpuTensor(dtype, [count, ...shape], values.get(name)!))
    const bytes = writeSafetensors(tensors, { format: 'nexus-capture', capability: layout.capability })
    const file = shardFile(index)
    await writeFileAtomic(join(folder, file), bytes)
    shards[index] = { file, rows: count, tokens: count * layout.tokens, bytes: bytes.length, sha256: sha256(bytes) }
    await writeJson(join(folder, manifestFile), { version: 1, ...layout, shards } satisfies Manifest)
    made.push(file)
  }
  for (const [index, shard] of shards.entries())
    if ((await faultOf(folder, shard)) !== undefined) await add(index, shard.rows)
  const perShard = Math.max(
    1,
    Math.floor(shardBytes / layout.columns.reduce((sum, column) => sum + rowBytes(column), 0)),
  )
  for (;;) {
    const there = shards.reduce((sum, shard) => sum + shard.rows, 0)
    if (there >= rows) return made
    await add(shards.length, Math.min(perShard, rows - there))
  }
}

/** Whether a capture has its rows, and every shard its bytes. */
export async function isWhole(folder: string, rows: number): Promise<boolean> {
  if (!exists(join(folder, manifestFile))) return false
  const { shards } = await readManifest(folder)
  for (const shard of shards) if ((await faultOf(folder, shard)) !== undefined) return false
  return shards.reduce((sum, shard) => sum + shard.rows, 0) >= rows
}

/** What is wrong with a shard's file, or undefined. */
async function faultOf(folder: string, { file, sha256: expected }: Shard): Promise<string | undefined> {
  const path = join(folder, file)
  if (!exists(path)) return 'it is missing'
  return (await sha256OfFile(path)) === expected ? undefined : 'its sha256 is not the one that the manifest names'
}

async function readManifest(folder: string): Promise<Manifest> {
  const path = join(folder, manifestFile)
  const result = manifestSchema.safeParse(await readJson(path))
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new SyntaxError(
    `Cannot read ${path}: ${issue.path.join('.')}: ${issue.message}. Delete the folder and run again: it is captured anew.`,
  )
}

/** Rows of a capture, as numbers. */
export interface CaptureRows {
  readonly rows: number
  readonly tokens: number
  /** By name: the shape of one row, and the values of all rows. */
  readonly columns: ReadonlyMap<
    string,
    { readonly shape: readonly number[]; readonly values: Float32Array | Uint32Array }
  >
}

interface OpenShard {
  readonly source: FileSource
  readonly offsets: ReadonlyMap<string, number>
}

/** A capture on disk, of which the rows that are asked for are read. Dispose of it when done. */
export class Capture implements AsyncDisposable {
  readonly layout: CaptureLayout
  readonly rows: number
  readonly bytes: number
  readonly #folder: string
  readonly #shards: readonly Shard[]
  /** First row of each shard. */
  readonly #first: readonly number[]
  readonly #open = new Map<number, OpenShard>()

  private constructor(folder: string, { shards, version: _, ...layout }: Manifest) {
    this.#folder = folder
    this.layout = layout
    this.#shards = shards
    let rows = 0
    this.#first = shards.map((shard) => {
      rows += shard.rows
      return rows - shard.rows
    })
    this.rows = rows
    this.bytes = shards.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Opens what {@link writeCapture} wrote. @throws SyntaxError naming the manifest when it is missing or damaged. */
  static async open(folder: string): Promise<Capture> {
    return new Capture(folder, await readManifest(folder))
  }

  has(column: string): boolean {
    return this.layout.columns.some(({ name }) => name === column)
  }

  /**
   * Some rows, in the order of `indices`. A shard is compared with its hash before it is first used.
   * @param names columns; all unless told.
   * @throws SyntaxError naming the shard that is missing or damaged, and the cure.
   */
  async read(indices: readonly number[], names?: readonly string[]): Promise<CaptureRows> {
    const wanted = this.layout.columns.filter(({ name }) => !names || names.includes(name))
    const parts = new Map(wanted.map((column) => [column.name, new Uint8Array(rowBytes(column) * indices.length)]))
    for (const [i, row] of indices.entries()) {
      if (!(Number.isInteger(row) && row >= 0 && row < this.rows))
        throw new RangeError(`Cannot read row ${row} of the capture ${this.#folder}: it has ${this.rows}`)
      const shard = this.#first.findLastIndex((first) => first <= row)
      const { source, offsets } = await this.#shard(shard)
      for (const column of wanted) {
        const size = rowBytes(column)
        const at = offsets.get(column.name)! + (row - this.#first[shard]) * size
        parts.get(column.name)!.set(await source.read(at, size), i * size)
      }
    }
    const columns = new Map(
      wanted.map(({ name, dtype, shape }) => {
        const tensor = { dtype, shape: [indices.length, ...shape], data: parts.get(name)! }
        return [name, { shape, values: dtype === 'F16' ? toFloat32(tensor) : toUint32(tensor) }]
      }),
    )
    return { rows: indices.length, tokens: this.layout.tokens, columns }
  }

  async #shard(index: number): Promise<OpenShard> {
    const before = this.#open.get(index)
    if (before) return before
    const shard = this.#shards[index]
    const fault = await faultOf(this.#folder, shard)
    if (fault)
      throw new SyntaxError(
        `Cannot read the capture shard ${join(this.#folder, shard.file)}: ${fault}. Run again with the teacher's file in ` +
          `its place: its ${shard.rows} rows alone are captured again.`,
      )
    const source = await FileSource.open(join(this.#folder, shard.file))
    const { entries } = await readSafetensorsHeader(source)
    const open = { source, offsets: new Map([...entries.values()].map(({ name, offset }) => [name, offset])) }
    this.#open.set(index, open)
    return open
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { source } of this.#open.values()) await source[Symbol.asyncDispose]()
    this.#open.clear()
  }
}
