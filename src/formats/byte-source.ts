/** Bytes that can be read anywhere: a file, a part of memory, a web resource that answers ranges. */
export interface ByteSource {
  /** Number of bytes. */
  readonly length: number
  /**
   * `length` bytes from `offset`, never fewer.
   * @throws SyntaxError when the range is not inside the source.
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>
}

/** Bytes in memory as a source; what is read is a view, nothing is copied. */
export function memorySource(bytes: Uint8Array<ArrayBuffer>): ByteSource {
  return {
    length: bytes.length,
    async read(offset, length) {
      checkRange(offset, length, bytes.length)
      return bytes.subarray(offset, offset + length)
    },
  }
}

/**
 * Checks that `length` bytes from `offset` lie inside `available` bytes.
 * @throws SyntaxError when they do not.
 */
export function checkRange(offset: number, length: number, available: number): void {
  const fits = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
  if (!fits || offset + length > available)
    throw new SyntaxError(`Cannot read ${length} bytes at ${offset}: there are ${available} bytes`)
}
