import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Tokenizer } from '../../src/formats/tokenizer.ts'
import { TextStream } from '../../src/inference/text-stream.ts'

/** A tokenizer of single bytes, as a byte-level one behaves: characters of several bytes come in pieces. */
const bytes: Tokenizer = {
  size: 256,
  specials: new Map(),
  encode: (text) => [...new TextEncoder().encode(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
  bytes: () => Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)),
}

function streamed(text: string, stops: string[] = []) {
  const stream = new TextStream(bytes, stops)
  const pieces = bytes.encode(text).map((id) => stream.push(id))
  return { pieces: [...pieces, stream.end()], stopped: stream.stopped }
}

test('the pieces make the text, and no piece holds half a character', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 20 }), (text) => {
      fc.pre(!text.includes('\ufffd') && !text.startsWith('\ufeff'))
      const { pieces } = streamed(text)
      expect(pieces.join('')).toBe(text)
      expect(pieces.some((piece) => piece.includes('\ufffd'))).toBe(false)
    }),
    { seed: 42 },
  )
})

test('a stop string ends the text before it, wherever the pieces break', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[ab]{0,12}$/), fc.stringMatching(/^[ab]{1,4}$/), (text, stop) => {
      const { pieces, stopped } = streamed(text, [stop])
      const at = text.indexOf(stop)
      expect(pieces.join('')).toBe(at < 0 ? text : text.slice(0, at))
      expect(stopped).toBe(at >= 0)
    }),
    { seed: 42 },
  )
})
