import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { GgufValue } from '../../src/formats/gguf.ts'
import { tokenizerFromGguf } from '../../src/formats/gguf-tokenizer.ts'
import { loadTokenizer } from '../../src/formats/tokenizer.ts'

interface Case {
  readonly tokens: string[]
  readonly merges: string[]
  readonly ids: number[][]
}
const { texts, cases } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../oracles/golden/pre-tokenizers.json'), 'utf8'),
) as { texts: string[]; cases: Record<string, Case> }

test.each(Object.entries(cases))('%s cuts text as Hugging Face’s own library does', (pre, { tokens, merges, ids }) => {
  const metadata = new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.pre', pre],
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.merges', merges],
  ])
  const { json, settings } = tokenizerFromGguf(metadata)
  const tokenizer = loadTokenizer(json, settings)
  for (const [i, text] of texts.entries()) {
    expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids[i])
    expect(tokenizer.decode(ids[i])).toBe(pre === 'qwen2' ? text.normalize('NFC') : text)
  }
})
