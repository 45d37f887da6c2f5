import type { EncodedRow } from './encode.ts'

/** Rows of one or more sequences each, padded to one length. */
export interface PackedBatch {
  readonly rows: number
  readonly tokens: number
  /** u32 (rows, tokens) */
  readonly ids: Uint32Array<ArrayBuffer>
  /** u32 (rows, tokens): the id after each, in its sequence. */
  readonly targets: Uint32Array<ArrayBuffer>
  /** f32 (rows, tokens): 1 where the target is learned, else 0. */
  readonly weights: Float32Array<ArrayBuffer>
  /** u32 (rows, tokens): where the sequence of each token begins; padding is a sequence of its own at each place. */
  readonly starts: Uint32Array<ArrayBuffer>
  /** Sum of the weights. */
  readonly total: number
  /** Tokens that are not padding. */
  readonly used: number
}

/** Lengths are rounded up to a multiple of this, so that few kernels and buffers are made. */
const lengthStep = 32

/**
 * Sequences laid behind each other in their rows.
 * @param rows the sequences of each row.
 * @param most tokens of a row.
 * @throws RangeError when a row's sequences are longer.
 */
export function packBatch(rows: readonly (readonly EncodedRow[])[], most: number): PackedBatch {
  const sizes = rows.map((row) => row.reduce((sum, { ids }) => sum + ids.length - 1, 0))
  const longest = Math.max(...sizes)
  if (longest > most) throw new RangeError(`Cannot pack a row of ${longest} tokens: it may have ${most}`)
  const tokens = Math.min(most, Math.ceil(longest / lengthStep) * lengthStep)
  const size = rows.length * tokens
  const ids = new Uint32Array(size)
  const targets = new Uint32Array(size)
  const weights = new Float32Array(size)
  const starts = Uint32Array.from({ length: size }, (_, i) => i % tokens)
  let total = 0
  for (const [r, row] of rows.entries()) {
    let at = r * tokens
    for (const sequence of row) {
      const start = at - r * tokens
      for (let t = 0; t + 1 < sequence.ids.length; t++, at++) {
        ids[at] = sequence.ids[t]
        targets[at] = sequence.ids[t + 1]
        weights[at] = sequence.trained[t + 1] ? 1 : 0
        starts[at] = start
        total += weights[at]
      }
    }
  }
  const used = sizes.reduce((sum, own) => sum + own, 0)
  return { rows: rows.length, tokens, ids, targets, weights, starts, total, used }
}
