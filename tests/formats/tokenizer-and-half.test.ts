import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fromHalf, toHalf } from '../../src/core/half.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'

test('half floats round to nearest even and come back', () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = fromHalf(bits)
    if (Number.isNaN(value)) expect(Number.isNaN(fromHalf(toHalf(value)))).toBe(true)
    else expect(toHalf(value)).toBe(bits)
  }
  expect(fromHalf(toHalf(1 + 2 ** -11))).toBe(1)
  expect(fromHalf(toHalf(1 + 3 * 2 ** -11))).toBe(1 + 2 ** -9)
  expect(fromHalf(toHalf(65520))).toBe(Number.POSITIVE_INFINITY)
})

test('ids equal those of Hugging Face’s own library', () => {
  const rows = JSON.parse(readFileSync(join(import.meta.dirname, '../oracles/golden/tokenizer-ids.json'), 'utf8')) as {
    text: string
    ids: number[]
  }[]
  const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
  expect(tokenizer.size).toBe(96)
  for (const { text, ids } of rows) {
    expect(tokenizer.encode(text)).toEqual(ids)
    expect(tokenizer.decode(ids)).toBe(text)
  }
})

test('a character that the vocabulary lacks is refused, and so is a file that is no tokenizer', () => {
  const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
  expect(() => tokenizer.encode('naïve')).toThrow('Cannot encode "naïve"')
  expect(() => loadTokenizer({ model: { type: 'nonsense' } })).toThrow(SyntaxError)
})
