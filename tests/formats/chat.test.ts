import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type ChatMessage, ChatTemplate } from '../../src/formats/chat.ts'

const { template, chats } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../oracles/golden/gguf-ids.json'), 'utf8'),
) as { template: string; chats: { messages: ChatMessage[]; prompt: boolean; text: string }[] }

test('renders as transformers does', () => {
  const chat = new ChatTemplate(template)
  for (const { messages, prompt, text } of chats)
    expect(chat.render(messages, { addGenerationPrompt: prompt })).toBe(text)
  expect(chats).toHaveLength(4)
})

const render = (source: string, limits = {}) => new ChatTemplate(source, {}, limits).render([])

test.each([
  [
    'an endless loop',
    '{% for i in range(4000) %}{% for j in range(4000) %}{% set x = j * i %}{% endfor %}{% endfor %}',
    'longer than',
  ],
  ['a huge range', '{% for i in range(10000000000) %}{% endfor %}', 'a range of 10000000000 numbers'],
  ['a range without end', '{% for i in range(0, 5, 0) %}{% endfor %}', 'a range of'],
  [
    'text that doubles',
    `{% set ns = namespace(s='aaaaaaaa') %}${'{% set ns.s = ns.s ~ ns.s %}'.repeat(40)}`,
    'more than',
  ],
  ['a list that doubles', `{% set ns = namespace(s=[1]) %}${'{% set ns.s = ns.s + ns.s %}'.repeat(40)}`, 'more than'],
  ['long output', "{% for i in range(1000) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}", 'Cannot render'],
  ['endless recursion', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'Cannot render'],
  ['a refusal', "{{ raise_exception('roles must alternate') }}", 'roles must alternate'],
  ['an unknown filter', "{{ 'a' | nonsense }}", 'Cannot render'],
])('%s ends with a SyntaxError, soon', (_, source, reason) => {
  const begin = performance.now()
  expect(() => render(source, { milliseconds: 200, size: 4096 })).toThrow(SyntaxError)
  expect(() => render(source, { milliseconds: 200, size: 4096 })).toThrow(reason)
  expect(performance.now() - begin).toBeLessThan(2000)
})

test('a template that cannot be parsed, or is too long, is refused', () => {
  expect(() => new ChatTemplate('{% if %}')).toThrow(SyntaxError)
  expect(() => new ChatTemplate(`${'{% if x %}'.repeat(20_000)}`)).toThrow(SyntaxError)
  expect(() => new ChatTemplate('x'.repeat(300_000))).toThrow('at most 262144')
})

test('a template sees the clock, the special tokens and the variables it is given, and changes nothing outside', () => {
  const chat = new ChatTemplate(
    "{{ strftime_now('%d %b %Y, %A') }} {{ bos_token }} {{ tools[0].name }} {{ add_generation_prompt }}",
    { bos_token: { content: '<s>' }, eos_token: null },
  )
  const now = new Date(2024, 1, 3)
  expect(chat.render([], { now, variables: { tools: [{ name: 'add' }] } })).toBe('03 Feb 2024, Saturday <s> add true')
  const messages = [{ role: 'user', content: 'a' }]
  new ChatTemplate('{% set messages = [] %}{{ messages | length }}').render(messages)
  expect(messages).toHaveLength(1)
})
