import type { ByteSource } from '../formats/byte-source.ts'

/** A line of a text file. */
export interface Line {
  /** From 1. */
  readonly number: number
  /** Without its end. */
  readonly text: string
}

const chunkBytes = 2 ** 20
const mostLineBytes = 2 ** 26

/**
 * The lines of a UTF-8 text, a megabyte in memory at a time; \n and \r\n end a line, and a byte order mark is skipped.
 * @param name of the source, for messages.
 * @throws SyntaxError naming the line that is not UTF-8 or longer than 64 MiB.
 */
export async function* readLines(name: string, source: ByteSource): AsyncGenerator<Line> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  let number = 0
  let rest: Uint8Array[] = []
  let restBytes = 0
  const lineOf = (end: Uint8Array): Line => {
    number++
    const bytes = rest.length === 0 ? end : joined([...rest, end], restBytes + end.length)
    rest = []
    restBytes = 0
    const last = bytes.length - (bytes.at(-1) === 0x0d ? 1 : 0)
    try {
      const text = decoder.decode(bytes.subarray(0, last))
      return { number, text: number === 1 ? text.replace(/^\ufeff/, '') : text }
    } catch {
      throw new SyntaxError(`${name}:${number}: the line is not UTF-8`)
    }
  }
  for (let offset = 0; offset < source.length; offset += chunkBytes) {
    const chunk = await source.read(offset, Math.min(chunkBytes, source.length - offset))
    let begin = 0
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, begin)) {
      yield lineOf(chunk.subarray(begin, end))
      begin = end + 1
    }
    if (begin < chunk.length) {
      // A copy: the source may reuse its memory for the next chunk.
      rest.push(chunk.slice(begin))
      restBytes += chunk.length - begin
    }
    if (restBytes > mostLineBytes)
      throw new SyntaxError(`${name}:${number + 1}: the line is longer than ${mostLineBytes} bytes`)
  }
  if (restBytes > 0) yield lineOf(new Uint8Array(0))
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
