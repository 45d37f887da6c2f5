import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { type EncodedRow, encodeExample } from '../../src/data/encode.ts'
import { DataOrder } from '../../src/data/order.ts'
import { packBatch } from '../../src/data/packed-batch.ts'
import { firstFitDecreasing } from '../../src/data/packing.ts'
import { openRows, rowWords } from '../../src/data/row-file.ts'
import { memorySource } from '../../src/formats/byte-source.ts'
import { type ChatMessage, ChatTemplate } from '../../src/formats/chat.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'

const special = (id: number, content: string) => ({ id, content, special: true })
const tokenizer = loadTokenizer({
  ...characterTokenizer(asciiAlphabet),
  added_tokens: [special(96, '<|start|>'), special(97, '<|end|>')],
})
const template =
  '{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}' +
  '{% if add_generation_prompt %}<|start|>assistant\n{% endif %}'
/** Shows thoughts of the last message alone, as Qwen3's does. */
const thinking =
  '{% for m in messages %}<|start|>{{ m.role }}\n{% if m.thought and loop.last %}({{ m.thought }}){% endif %}' +
  '{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}'

const spoken = ({ ids, trained }: { ids: ArrayLike<number>; trained: ArrayLike<boolean | number> }) =>
  tokenizer.decode(Array.from(ids).filter((_, i) => trained[i]))
const talk: ChatMessage[] = [
  { role: 'user', content: 'hi' },
  { role: 'assistant', content: 'hello', thought: 'greet' },
  { role: 'user', content: 'what is <|end|>' },
  { role: 'assistant', content: 'an end', thought: 'explain' },
]

describe('conversations', () => {
  const encoding = { tokenizer, chat: new ChatTemplate(template), eosId: 0, length: 400 }
  test('are learned where the assistant speaks, its end tokens included and nothing else', () => {
    const { rows } = encodeExample('x', { kind: 'chat', messages: talk }, encoding)
    expect(rows).toHaveLength(1)
    expect(spoken(rows[0])).toBe('hello<|end|>an end<|end|>')
    expect(rows[0].ids).toEqual(encoding.chat.encode(tokenizer, talk, { addGenerationPrompt: false }))
    // What the user spells stays text: three end tokens of the other messages and one of the last.
    expect(Array.from(rows[0].ids).filter((id) => id === 97)).toHaveLength(4)
  })
  test('become a row an answer where a template shows earlier answers differently', () => {
    const { rows } = encodeExample(
      'x',
      { kind: 'chat', messages: talk },
      { ...encoding, chat: new ChatTemplate(thinking) },
    )
    expect(rows.map(spoken)).toEqual(['(greet)hello<|end|>', '(explain)an end<|end|>'])
    expect(tokenizer.decode(Array.from(rows[1].ids))).toContain('<|start|>assistant\nhello<|end|>')
  })
  test('are cut at the length, and dropped where nothing to learn is left', () => {
    const cut = encodeExample('x', { kind: 'chat', messages: talk }, { ...encoding, length: 30 })
    expect(cut.rows.map(({ ids }) => ids.length)).toEqual([30])
    expect(cut.cut).toBeGreaterThan(0)
    expect(encodeExample('x', { kind: 'chat', messages: talk }, { ...encoding, length: 9 }).rows).toEqual([])
  })
  test('without a template, and templates that prompt otherwise, are refused with the place', () => {
    const { chat: _, ...bare } = encoding
    expect(() => encodeExample('d:3', { kind: 'chat', messages: talk }, bare)).toThrow('d:3: it is a conversation')
    const odd = new ChatTemplate(
      '{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}',
    )
    expect(() => encodeExample('d:3', { kind: 'chat', messages: talk }, { ...encoding, chat: odd })).toThrow(
      'd:3: Cannot train on the conversation: the chat template does not begin message 1',
    )
  })
  test('completions are learned behind their prompts, texts whole in windows', () => {
    const [row] = encodeExample('x', { kind: 'completion', prompt: 'ab', completion: 'cd' }, encoding).rows
    expect(spoken(row)).toBe('cd\n')
    const [begun] = encodeExample(
      'x',
      { kind: 'completion', prompt: 'a', completion: 'b' },
      { ...encoding, bosId: 96 },
    ).rows
    expect(tokenizer.decode(Array.from(begun.ids))).toBe('<|start|>ab\n')
    const { rows } = encodeExample('x', { kind: 'text', text: 'abcdefgh' }, { ...encoding, length: 4 })
    expect(rows.map(({ ids }) => tokenizer.decode(Array.from(ids)))).toEqual(['abcd', 'defg', 'gh\n'])
    expect(rows.map(spoken).join('')).toBe('bcdefgh\n')
  })
})

describe('packing', () => {
  test('loses nothing, overfills nothing, and needs at most 11/9 of the fewest bins and one', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 80 }), (sizes) => {
        const bins = firstFitDecreasing([...sizes.keys()], (i) => sizes[i], 64)
        expect(bins.flat().sort((a, b) => a - b)).toEqual([...sizes.keys()])
        const loads = bins.map((bin) => bin.reduce((sum, i) => sum + sizes[i], 0))
        expect(Math.max(...loads)).toBeLessThanOrEqual(64)
        const fewest = Math.ceil(sizes.reduce((sum, size) => sum + size, 0) / 64)
        // The bound is on the optimum, which the volume bounds from below; items above half a bin cannot share.
        const large = sizes.filter((size) => size > 32).length
        expect(bins.length).toBeLessThanOrEqual(Math.max(fewest, large) * 2)
      }),
    )
    expect(firstFitDecreasing([6, 5, 4, 3, 2], (x) => x, 10)).toEqual([
      [6, 4],
      [5, 3, 2],
    ])
  })
  test('lays sequences behind each other, each with its own targets and start', () => {
    const row = (ids: number[], trained: boolean[]): EncodedRow => ({ ids, trained })
    const batch = packBatch(
      [[row([1, 2, 3], [false, true, true]), row([7, 8], [false, true])], [row([4, 5], [false, false])]],
      40,
    )
    expect([batch.rows, batch.tokens, batch.total, batch.used]).toEqual([2, 32, 3, 4])
    expect([...batch.ids.subarray(0, 4)]).toEqual([1, 2, 7, 0])
    expect([...batch.targets.subarray(0, 4)]).toEqual([2, 3, 8, 0])
    expect([...batch.weights.subarray(0, 4)]).toEqual([1, 1, 1, 0])
    expect([...batch.starts.subarray(0, 5)]).toEqual([0, 0, 2, 3, 4])
    expect([batch.ids[32], batch.targets[32], batch.weights[32], batch.starts[32]]).toEqual([4, 5, 0, 0])
    expect(() => packBatch([[row([1, 2, 3, 4], [])]], 2)).toThrow('a row of 3 tokens')
  })
})

describe('order', () => {
  const random = new Random(5)
  const lengths = Array.from({ length: 3000 }, () => 2 + random.integer(60))
  test.each([true, false])('shows every row once an epoch and the same from any step on, packing %s', (packing) => {
    const options = { seed: 1, rows: 4, tokens: 64, packing }
    const order = new DataOrder(lengths, options)
    const count = order.batchesIn(0)
    const epoch = Array.from({ length: count }, (_, i) => order.batch(i))
    expect(epoch.flat(2).sort((a, b) => a - b)).toEqual([...lengths.keys()])
    for (const batch of epoch)
      for (const row of batch) expect(row.reduce((sum, i) => sum + lengths[i] - 1, 0)).toBeLessThanOrEqual(64)
    const later = count + 7
    const wanted = order.batch(later)
    expect(new DataOrder(lengths, options).batch(later)).toEqual(wanted)
    expect(order.batch(3)).toEqual(epoch[3])
    expect(wanted).not.toEqual(epoch[7])
    expect(new DataOrder(lengths, { ...options, seed: 2 }).batch(0)).not.toEqual(epoch[0])
  })
  test('wastes little: packed rows are full, batches of like lengths need little padding', () => {
    const padding = (packing: boolean) => {
      const order = new DataOrder(lengths, { seed: 1, rows: 4, tokens: 64, packing })
      let used = 0
      let all = 0
      for (let i = 0; i < order.batchesIn(0); i++) {
        const sizes = order.batch(i).map((row) => row.reduce((sum, r) => sum + lengths[r] - 1, 0))
        used += sizes.reduce((sum, size) => sum + size, 0)
        all += sizes.length * (packing ? 64 : Math.max(...sizes))
      }
      return 1 - used / all
    }
    expect(padding(true)).toBeLessThan(0.02)
    expect(padding(false)).toBeLessThan(0.05)
  })
  test('without rows is refused', () => {
    expect(() => new DataOrder([], { seed: 1, rows: 1, tokens: 1, packing: true })).toThrow('there are none')
  })
})

test('rows are read back from their file, and an index that does not fit is refused', async () => {
  const rows = [
    { ids: [1, 2, 3], trained: [false, true, false] },
    { ids: [4, 5], trained: [false, true] },
  ]
  const words = Uint32Array.from(rows.flatMap((row) => [...rowWords(row)]))
  const store = openRows(memorySource(new Uint8Array(words.buffer)), [3, 11, 2, 12])
  expect([...store.records]).toEqual([11, 12])
  const row = await store.row(1)
  expect([[...Array.from(row.ids)], [...Array.from(row.trained)]]).toEqual([
    [4, 5],
    [0, 1],
  ])
  expect(() => openRows(memorySource(new Uint8Array(8)), [3, 1])).toThrow('asks for 12 bytes, the file has 8')
})
