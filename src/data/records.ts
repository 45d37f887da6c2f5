import { parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import type { ByteSource } from '../formats/byte-source.ts'
import { readLines } from './lines.ts'

/** One entry of a data file. */
export interface DataRecord {
  /** Line or row in the file, from 1. */
  readonly number: number
  /** `data.jsonl:17`, or `data.parquet:row 17`, for messages. */
  readonly place: string
  readonly value: unknown
}

/** Kinds of data files by the ends of their names. */
const kinds: Readonly<Record<string, 'lines' | 'parquet' | 'text'>> = {
  jsonl: 'lines',
  ndjson: 'lines',
  parquet: 'parquet',
  txt: 'text',
  md: 'text',
}

const rowsAtOnce = 1000
const textAtOnce = 2 ** 16

/** `data.jsonl:17`: a place in the file called `name`. */
export function placeOf(name: string, number: number): string {
  return kindOf(name) === 'parquet' ? `${name}:row ${number}` : `${name}:${number}`
}

/**
 * The records of a JSONL, Parquet or text file, a part in memory at a time. A text gives records `{ text }` of whole
 * lines, 64 Ki characters or more each and ended at an empty line where there is one.
 * @param name of the file; its end says what it is.
 * @throws SyntaxError with the place, when a line is not JSON or the file is damaged or of another kind.
 */
export async function* readRecords(name: string, source: ByteSource): AsyncGenerator<DataRecord> {
  const kind = kindOf(name)
  if (kind === 'parquet') yield* readParquet(name, source)
  else if (kind === 'text') yield* readText(name, source)
  else
    for await (const { number, text } of readLines(name, source)) {
      if (text.trim() === '') continue
      const place = placeOf(name, number)
      try {
        yield { number, place, value: JSON.parse(text) }
      } catch (error) {
        throw new SyntaxError(`${place}: it is not JSON (${(error as Error).message})`)
      }
    }
}

function kindOf(name: string): 'lines' | 'parquet' | 'text' {
  const kind = kinds[name.slice(name.lastIndexOf('.') + 1).toLowerCase()]
  const ends = Object.keys(kinds).map((end) => `.${end}`)
  if (!kind)
    throw new SyntaxError(
      `Cannot read ${name}: data must be ${ends.join(', ')}. A list in a .json file becomes .jsonl with: jq -c '.[]'`,
    )
  return kind
}

async function* readText(name: string, source: ByteSource): AsyncGenerator<DataRecord> {
  let text = ''
  let first = 1
  for await (const line of readLines(name, source)) {
    const full = text.length >= (line.text.trim() === '' ? textAtOnce : 4 * textAtOnce)
    if (full) {
      yield { number: first, place: placeOf(name, first), value: { text } }
      text = ''
      first = line.number
    }
    text += `${line.text}\n`
  }
  if (text.trim() !== '') yield { number: first, place: placeOf(name, first), value: { text } }
}

async function* readParquet(name: string, source: ByteSource): AsyncGenerator<DataRecord> {
  const file = {
    byteLength: source.length,
    slice: async (begin: number, end = source.length) => {
      const bytes = await source.read(begin, end - begin)
      return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
    },
  }
  const fault = (error: unknown) => new SyntaxError(`Cannot read ${name}: ${(error as Error).message}`)
  const metadata = await parquetMetadataAsync(file).catch((error: unknown) => {
    throw fault(error)
  })
  let first = 0
  for (const group of metadata.row_groups) {
    const end = first + Number(group.num_rows)
    for (let begin = first; begin < end; begin += rowsAtOnce) {
      const options = { file, metadata, compressors, rowStart: begin, rowEnd: Math.min(end, begin + rowsAtOnce) }
      const rows = await parquetReadObjects(options).catch((error: unknown) => {
        throw fault(error)
      })
      for (const [i, value] of rows.entries()) {
        const number = begin + i + 1
        yield { number, place: placeOf(name, number), value }
      }
    }
    first = end
  }
}
