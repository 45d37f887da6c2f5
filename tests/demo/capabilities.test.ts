import { beforeAll, describe, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { mobyDickText, tinyCapabilities } from '../../src/demo/capabilities.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import type { Row } from '../../src/train/batch.ts'
import type { Capability } from '../../src/train/capability.ts'

const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
const text = ({ ids }: Pick<Row, 'ids'>) => Array.from(ids, (id) => asciiAlphabet[id]).join('')

describe.each([
  ['add', /^\+(\d\d)\+(\d\d)=(\d{3})$/],
  ['code', /^#([rsd])([a-h]{3,6})>([a-h]+)$/],
] as const)('%s', (name, form) => {
  let capability: Capability
  let held: Set<string>
  beforeAll(() => {
    capability = tinyCapabilities(tokenizer).find((item) => item.name === name)!
    held = new Set(capability.items().map((item) => text(item).split('\n')[1]))
  })

  const backwards = (digits: string) => Number([...digits].reverse().join(''))
  const right = (item: string): boolean => {
    const [, a, b, c] = form.exec(item)!
    if (name === 'add') return backwards(a) + backwards(b) === backwards(c)
    if (a === 'r') return c === [...b].reverse().join('')
    if (a === 's') return c === [...b].sort().join('')
    return c === [...b].filter((letter, i) => b.indexOf(letter) === i).join('')
  }

  test('has at least 1,200 distinct held-out items, each right', () => {
    expect(held.size).toBeGreaterThanOrEqual(1200)
    for (const item of held) expect(right(item), item).toBe(true)
  })

  test('no training row contains a held-out item, and only answers are trained', () => {
    const random = new Random(9)
    let items = 0
    for (let i = 0; i < 2000; i++) {
      const row = capability.row(random, 48)
      expect(row.ids.length).toBe(49)
      expect(row.weights.length).toBe(48)
      const whole = text(row).split('\n').slice(1, -1)
      for (const item of whole) {
        expect(right(item), item).toBe(true)
        expect(held.has(item), item).toBe(false)
        items++
      }
      // The token after a weight of 1 is part of an answer, or the newline that ends it.
      const line = text(row)
      for (let t = 0; t < 48; t++) {
        const answers = line
          .slice(0, t + 1)
          .split('\n')
          .at(-1)!
        expect(row.weights[t]).toBe(/[=>]/.test(answers) ? 1 : 0)
      }
    }
    expect(items).toBeGreaterThan(4000)
  })

  test('is the same every time', () => {
    const again = tinyCapabilities(tokenizer).find((item) => item.name === name)!
    expect(again.items()).toEqual(capability.items())
    expect(again.row(new Random(3), 48)).toEqual(capability.row(new Random(3), 48))
  })
})

test('prose trains on the first part of the book and is scored on the rest', () => {
  const book = mobyDickText()
  expect(book.slice(0, 43)).toBe('CONTENTS ETYMOLOGY. EXTRACTS (Supplied by a')
  expect(book.includes('Call me Ishmael. Some years ago--never mind how long precisely')).toBe(true)
  expect(/^[ -~]+$/.test(book)).toBe(true)
  const split = Math.floor(book.length * 0.95)
  const prose = tinyCapabilities(tokenizer).find(({ name }) => name === 'prose')!
  for (const item of prose.items()) expect(book.slice(split).includes(text(item))).toBe(true)
  expect(prose.items().length * 48).toBeGreaterThanOrEqual(1200)
  const random = new Random(4)
  for (let i = 0; i < 200; i++) expect(book.slice(0, split).includes(text(prose.row(random, 48)))).toBe(true)
})
