import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import { crossEntropy } from '../../src/kernels/losses.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { readChoices } from '../../src/train/choice-file.ts'
import { type ChoiceItem, scoreChoices, shareOf } from '../../src/train/score-choices.ts'
import { config } from '../bundle/tiny-bundle.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-choices-'))
})
afterAll(() => rm(folder, { recursive: true }))

const encoding = { tokenizer: loadTokenizer(characterTokenizer(asciiAlphabet)), eosId: 0 }
const write = async (name: string, records: readonly object[]) => {
  const path = join(folder, name)
  await writeFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  return path
}

/** Log-likelihood of the weighted tokens of a row, from all logits. */
async function likelihood(model: Decoder, { ids, weights }: ChoiceItem['rows'][number]): Promise<number> {
  using step = gpu.step()
  const tokens = ids.length - 1
  const all = Array.from(ids)
  const logits = model.forward(step, step.upload('u32', [1, tokens], all.slice(0, -1)))
  const losses = await step.read(crossEntropy(step, logits, step.upload('u32', [1, tokens], all.slice(1))))
  return -losses.reduce((sum, loss, i) => sum + loss * weights[i], 0)
}

test('answers are scored by their log-likelihood, and by that a character, as lm-evaluation-harness does', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(3), 0.4)
    const random = new Random(4)
    const word = () =>
      Array.from({ length: 1 + random.integer(6) }, () => String.fromCharCode(97 + random.integer(26))).join('')
    const records = Array.from({ length: 20 }, (_, i) => ({
      prompt: `${word()} `,
      // Answers of one character share the row of their question; the others have one each.
      choices: i < 5 ? ['a', 'b', 'c'] : [word(), word(), word()],
      answer: random.integer(3),
    }))
    const items = await readChoices(await write('words.jsonl', records), encoding, 32)
    const { acc, accNorm, bitsPerToken } = await scoreChoices({
      ...{ gpu, model, items, task: 'score', onProgress: () => {}, batch: 7 },
    })
    let [nats, tokens] = [0, 0]
    for (const [i, { rows, characters, answer }] of items.entries()) {
      expect(characters).toEqual(records[i].choices.map((choice) => choice.length))
      const scores: number[] = []
      for (const row of rows) scores.push(await likelihood(model, row))
      const best = (values: readonly number[]) => (values.indexOf(Math.max(...values)) === answer ? 1 : 0)
      expect(acc[i]).toBe(best(scores))
      expect(accNorm[i]).toBe(best(scores.map((score, choice) => score / characters[choice])))
      nats -= scores[answer]
      tokens += Array.from(rows[answer].weights).filter((weight) => weight > 0).length
    }
    expect(bitsPerToken).toBeCloseTo(nats / tokens / Math.LN2, 4)
  }))

test('the question ends where its answer begins: the space between them belongs to the answer', async () => {
  const path = await write('space.jsonl', [{ prompt: 'ab ', choices: ['c', 'de'], answer: 1 }])
  const [{ rows }] = await readChoices(path, encoding, 32)
  expect(encoding.tokenizer.decode(Array.from(rows[1].ids))).toBe('ab de')
  expect([...Array.from(rows[1].weights)]).toEqual([0, 1, 1, 1])
})

test('a standard error is that of the mean', () => {
  expect(shareOf([1, 1, 1, 0])).toEqual({ score: 0.75, stderr: Math.sqrt((0.75 * 0.25) / 3) })
  expect(shareOf([1])).toEqual({ score: 1, stderr: 0 })
})

test.each([
  [{ prompt: 'a', choices: ['b'], answer: 0 }, 'bad.jsonl:1: "choices" must be two or more'],
  [{ prompt: 'a', choices: ['b', 'c'], answer: 2 }, '"answer" is 2, the last of 2 choices is 1'],
  [{ prompt: 1, choices: ['b', 'c'], answer: 0 }, '"prompt" must be a text'],
  [{ prompt: 'a', choices: ['b', 'c'.repeat(40)], answer: 0 }, 'more than 32 tokens'],
])('%j is refused with its line', async (record, reason) => {
  await expect(readChoices(await write('bad.jsonl', [record]), encoding, 32)).rejects.toThrow(reason)
})
