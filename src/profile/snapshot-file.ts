import { layOutSafetensors, readSafetensorsHeader, type SafetensorsHeader } from '../formats/safetensors.ts'
import { exists, FileSource, writePartsAtomic } from '../host/files.ts'
import type { PcaSnapshot } from '../pca/snapshot.ts'

/** A collector's part of a file: its sizes are known before it is read. */
export interface SnapshotPart {
  readonly name: string
  readonly sizes: Readonly<Record<string, number>>
  read(): Promise<PcaSnapshot>
}

/**
 * Writes the snapshots of many collectors whole or not at all, with one of them in memory at a time.
 * @param facts what else is to be known, as JSON.
 */
export async function writeSnapshots(path: string, parts: readonly SnapshotPart[], facts: object): Promise<void> {
  const outlines = parts.flatMap(({ name, sizes }) =>
    Object.entries(sizes).map(([tensor, size]) => ({
      name: `${name}/${tensor}`,
      dtype: 'F32' as const,
      shape: [size],
    })),
  )
  const { header, order } = layOutSafetensors(outlines, { facts: JSON.stringify(facts) })
  const byName = new Map(parts.map((part) => [part.name, part]))
  await writePartsAtomic(path, async (add) => {
    await add(header)
    let current: { readonly name: string; readonly snapshot: PcaSnapshot } | undefined
    for (const full of order) {
      const name = full.slice(0, full.indexOf('/'))
      if (current?.name !== name) current = { name, snapshot: await byName.get(name)!.read() }
      const { buffer, byteOffset, byteLength } = current.snapshot.tensors.get(full.slice(name.length + 1))!
      await add(new Uint8Array(buffer, byteOffset, byteLength))
    }
  })
}

/** A file of snapshots that is read one collector at a time. */
export class SnapshotFile implements AsyncDisposable {
  readonly #source: FileSource
  readonly #header: SafetensorsHeader

  private constructor(source: FileSource, header: SafetensorsHeader) {
    this.#source = source
    this.#header = header
  }

  /** Opens a file, or nothing when there is none. @throws SyntaxError when it is damaged. */
  static async open(path: string): Promise<SnapshotFile | undefined> {
    if (!exists(path)) return undefined
    const source = await FileSource.open(path)
    return new SnapshotFile(source, await readSafetensorsHeader(source))
  }

  /** What {@link writeSnapshots} was given beside the snapshots. */
  get facts(): unknown {
    return JSON.parse(this.#header.metadata.facts)
  }

  /** The tensors of one collector. */
  async tensors(name: string): Promise<Map<string, Float32Array>> {
    const tensors = new Map<string, Float32Array>()
    for (const [full, { offset, byteLength }] of this.#header.entries)
      if (full.startsWith(`${name}/`)) {
        const bytes = await this.#source.read(offset, byteLength)
        tensors.set(full.slice(name.length + 1), new Float32Array(bytes.buffer, bytes.byteOffset, byteLength / 4))
      }
    return tensors
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#source[Symbol.asyncDispose]()
  }
}
