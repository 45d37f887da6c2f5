import { basename, join } from 'node:path'
import { z } from 'zod'
import type { OnProgress } from '../core/progress.ts'
import { type Encoding, encodeExample } from '../data/encode.ts'
import { toExample } from '../data/example.ts'
import { placeOf, readRecords } from '../data/records.ts'
import { openRows, type RowStore, rowWords } from '../data/row-file.ts'
import {
  exists,
  FileSource,
  readBytes,
  readJson,
  removeFolder,
  sha256,
  sha256Of,
  writeFileAtomic,
  writeJson,
  writePartsAtomic,
} from '../host/files.ts'

const schema = z.object({
  key: z.string(),
  dataHash: z.string(),
  rows: z.number().int(),
  records: z.number().int(),
  ids: z.number(),
  learned: z.number(),
  cut: z.number(),
})

/** What a data file became. */
export type RowSummary = z.infer<typeof schema>

/** Rows of a data file, encoded once and read from disk from then on. Dispose of it when done. */
export interface CachedRows extends RowStore, AsyncDisposable {
  readonly summary: RowSummary
  /** `data.jsonl:17`: where row `index` came from. */
  place(index: number): string
}

/** What {@link cacheRows} needs. */
export interface RowCacheOptions extends Encoding {
  /** The data. */
  readonly data: string
  /** Where the encoded rows are kept. */
  readonly folder: string
  /** Hash of the tokenizer and the chat template. */
  readonly encodingHash: string
  readonly onProgress: OnProgress
}

/**
 * Encodes a data file into a file of rows, a part in memory at a time, unless that was done before for the same data
 * (by its sha256), tokenizer, template and length.
 * @throws SyntaxError with the line of the data that is at fault.
 */
export async function cacheRows(options: RowCacheOptions): Promise<CachedRows> {
  const { data, folder, length, eosId, encodingHash } = options
  const name = basename(data)
  await using source = await FileSource.open(data)
  const dataHash = await sha256Of(source)
  const clock = options.now?.toISOString() ?? null
  const key = sha256(JSON.stringify([dataHash, name, encodingHash, length, eosId, clock]))
  const path = (file: string) => join(folder, file)
  const before = exists(path('rows.json')) ? schema.safeParse(await readJson(path('rows.json'))).data : undefined
  const summary = before?.key === key ? before : await encodeAll(options, source, { key, dataHash })
  const index = await readBytes(path('index.bin'))
  const file = await FileSource.open(path('rows.bin'))
  const rows = openRows(file, new Uint32Array(index.buffer, index.byteOffset, index.byteLength / 4))
  return {
    ...rows,
    summary,
    place: (row) => placeOf(name, rows.records[row]),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  }
}

async function encodeAll(
  options: RowCacheOptions,
  source: FileSource,
  hashes: { readonly key: string; readonly dataHash: string },
): Promise<RowSummary> {
  const { data, folder } = options
  const name = basename(data)
  // A summary must never stand beside rows that it does not describe; and what a killed process left may be large.
  await removeFolder(folder)
  const index: number[] = []
  const counts = { rows: 0, records: 0, ids: 0, learned: 0, cut: 0 }
  await writePartsAtomic(join(folder, 'rows.bin'), async (add) => {
    for await (const record of readRecords(name, source)) {
      const { rows, cut } = encodeExample(record.place, toExample(record), options)
      counts.records++
      counts.cut += cut
      for (const row of rows) {
        const words = rowWords(row)
        await add(new Uint8Array(words.buffer))
        index.push(words.length, record.number)
        counts.rows++
        counts.ids += words.length
        counts.learned += words.reduce((sum, word) => sum + (word >>> 31), 0)
      }
      if (counts.records % 1000 === 0)
        options.onProgress({
          task: 'encode the data',
          done: counts.records,
          total: counts.records + 1,
          unit: 'records',
        })
    }
    if (counts.rows === 0) throw new SyntaxError(`${name}: it holds nothing to learn from`)
  })
  await writeFileAtomic(join(folder, 'index.bin'), new Uint8Array(Uint32Array.from(index).buffer))
  const summary = { ...hashes, ...counts }
  await writeJson(join(folder, 'rows.json'), summary)
  return summary
}
