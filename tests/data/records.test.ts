import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { toExample } from '../../src/data/example.ts'
import { readLines } from '../../src/data/lines.ts'
import { readRecords } from '../../src/data/records.ts'
import { type ByteSource, memorySource } from '../../src/formats/byte-source.ts'

const source = (text: string | Uint8Array<ArrayBuffer>) =>
  memorySource(typeof text === 'string' ? new TextEncoder().encode(text) : text)
async function all<T>(items: AsyncGenerator<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

describe('lines', () => {
  test('end in either way, across the borders of chunks, with no more than a chunk asked for', async () => {
    const long = 'é'.repeat(700_000) // its two bytes are cut by the border of a megabyte
    const text = `\ufeffone\r\ntwo\n\n${long}\nlast`
    let most = 0
    const inner = source(text)
    const watched: ByteSource = {
      length: inner.length,
      read: (offset, length) => {
        most = Math.max(most, length)
        return inner.read(offset, length)
      },
    }
    const lines = await all(readLines('a.txt', watched))
    expect(lines.map(({ number }) => number)).toEqual([1, 2, 3, 4, 5])
    expect(lines.map(({ text }) => text)).toEqual(['one', 'two', '', long, 'last'])
    expect(most).toBe(2 ** 20)
    expect(await all(readLines('a.txt', source('')))).toEqual([])
  })
  test('that are not UTF-8 are refused by number', async () => {
    const bytes = new Uint8Array([0x61, 0x0a, 0xff, 0x0a])
    await expect(all(readLines('a.txt', source(bytes)))).rejects.toThrow('a.txt:2: the line is not UTF-8')
  })
})

describe('records', () => {
  test('of JSONL carry their lines, blank ones counted', async () => {
    const records = await all(readRecords('d.jsonl', source('{"text":"a"}\n\n{"text":"b"}\n')))
    expect(records.map(({ place }) => place)).toEqual(['d.jsonl:1', 'd.jsonl:3'])
    await expect(all(readRecords('d.jsonl', source('{"a":1}\n{oops\n')))).rejects.toThrow('d.jsonl:2: it is not JSON')
  })
  test('of a text are whole lines and lose nothing', async () => {
    const text = Array.from({ length: 9000 }, (_, i) => (i % 10 === 9 ? '' : `line ${i} ${'x'.repeat(30)}`)).join('\n')
    const records = await all(readRecords('d.txt', source(text)))
    expect(records.length).toBeGreaterThan(2)
    expect(records.map(({ value }) => (value as { text: string }).text).join('')).toBe(text)
  })
  test('of Parquet are rows, over row groups, lists and texts', async () => {
    const bytes = new Uint8Array(await readFile(join(import.meta.dirname, '../oracles/golden/chat.parquet')))
    const records = await all(readRecords('d.parquet', source(bytes)))
    expect(records).toHaveLength(5)
    expect(records[3].place).toBe('d.parquet:row 4')
    expect(toExample(records[3])).toEqual({
      kind: 'chat',
      messages: [
        { role: 'user', content: 'question 3' },
        { role: 'assistant', content: 'answer 3' },
      ],
    })
    await expect(all(readRecords('d.parquet', source(bytes.slice(0, 60))))).rejects.toThrow('Cannot read d.parquet')
  })
  test('of other kinds are refused with the cure', async () => {
    await expect(all(readRecords('d.json', source('[]')))).rejects.toThrow("becomes .jsonl with: jq -c '.[]'")
  })
})

describe('examples', () => {
  const example = (value: unknown) => toExample({ number: 17, place: 'data.jsonl:17', value })
  const ask = { role: 'user', content: 'q' }
  const answer = { role: 'assistant', content: 'a' }
  test('are read from every form', () => {
    const chat = { kind: 'chat', messages: [ask, answer] }
    expect(example({ messages: [ask, answer], id: 7 })).toEqual(chat)
    expect(
      example({
        conversations: [
          { from: 'human', value: 'q' },
          { from: 'gpt', value: 'a' },
        ],
      }),
    ).toEqual(chat)
    expect(example({ prompt: [ask], completion: [answer] })).toEqual(chat)
    expect(example({ instruction: 'q', output: 'a', input: '' })).toEqual(chat)
    expect(example({ instruction: 'q', input: 'i', output: 'a', system: 's' })).toEqual({
      kind: 'chat',
      messages: [{ role: 'system', content: 's' }, { role: 'user', content: 'q\n\ni' }, answer],
    })
    expect(example({ prompt: 'q', completion: 'a' })).toEqual({ kind: 'completion', prompt: 'q', completion: 'a' })
    expect(example({ text: 't' })).toEqual({ kind: 'text', text: 't' })
    const call = { role: 'assistant', content: null, tool_calls: [{ name: 'add' }] }
    expect(example({ messages: [ask, call], tools: [1] })).toEqual({ kind: 'chat', messages: [ask, call], tools: [1] })
  })
  test.each([
    [{ messages: 'hello' }, 'data.jsonl:17: "messages" must be a list of messages'],
    [{ messages: [] }, '"messages" must have one message or more'],
    [{ messages: [{ content: 'a' }] }, '"messages.0.role" must be a text'],
    [{ messages: [{ role: 'user', content: 3 }] }, '"messages.0.content" must be a text'],
    [{ messages: [ask] }, '"messages" must have an assistant\'s message: there is nothing to learn'],
    [{ conversations: [{ from: 'cat', value: 'miaow' }] }, '"conversations.0.from" must be one of human, user, gpt'],
    [{ conversations: [{ from: 'gpt' }] }, '"conversations.0.value" must be a text'],
    [{ prompt: 'q' }, '"completion" must be a text'],
    [{ instruction: 'q', output: 4 }, '"output" must be a text'],
    [{ text: ['a'] }, '"text" must be a text'],
    [{ question: 'q', answer: 'a' }, 'its fields are: question, answer'],
    [[1], 'its fields are: 0'],
    [null, 'its fields are: no object'],
  ])('%j is refused', (value, reason) => expect(() => example(value)).toThrow(reason))
})
