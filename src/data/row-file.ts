import type { ByteSource } from '../formats/byte-source.ts'
import type { EncodedRow } from './encode.ts'

/** Rows that are read when they are asked for. */
export interface RowStore {
  /** Ids of each row. */
  readonly lengths: Uint32Array
  /** Line or row of the data that each row came from. */
  readonly records: Uint32Array
  /** Row `index`. */
  row(index: number): Promise<EncodedRow>
}

const trainedBit = 2 ** 31

/** A row as words of a file: an id each, with the highest bit set where it is learned. */
export function rowWords({ ids, trained }: EncodedRow): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(ids, (id, i) => id + (trained[i] ? trainedBit : 0))
}

/**
 * Opens a file of rows.
 * @param source words of {@link rowWords}, row behind row.
 * @param index length and record of each row, one behind the other.
 * @throws SyntaxError when the two do not fit.
 */
export function openRows(source: ByteSource, index: ArrayLike<number>): RowStore {
  const count = index.length / 2
  const lengths = Uint32Array.from({ length: count }, (_, i) => index[2 * i])
  const records = Uint32Array.from({ length: count }, (_, i) => index[2 * i + 1])
  const offsets = new Float64Array(count + 1)
  for (let i = 0; i < count; i++) offsets[i + 1] = offsets[i] + 4 * lengths[i]
  if (offsets[count] !== source.length)
    throw new SyntaxError(
      `Cannot open the rows: their index asks for ${offsets[count]} bytes, the file has ${source.length}`,
    )
  return {
    lengths,
    records,
    async row(i) {
      const bytes = await source.read(offsets[i], 4 * lengths[i])
      const words = new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))
      return { ids: words.map((word) => word & 0x7fffffff), trained: Uint8Array.from(words, (word) => word >>> 31) }
    },
  }
}
