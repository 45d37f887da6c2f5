import { z } from 'zod'
import type { ChatMessage } from '../formats/chat.ts'
import type { DataRecord } from './records.ts'

/** What a model learns from one record. */
export type Example =
  /** A conversation: the assistant's words are learned. */
  | { readonly kind: 'chat'; readonly messages: readonly ChatMessage[]; readonly tools?: unknown }
  /** A text of which the second part is learned. */
  | { readonly kind: 'completion'; readonly prompt: string; readonly completion: string }
  /** A text, all of which is learned. */
  | { readonly kind: 'text'; readonly text: string }

const text = z.string({ error: 'must be a text' })
const message = z.looseObject(
  {
    role: z.string({ error: 'must be a text, such as "user" or "assistant"' }),
    // What a template makes of parts or of a call without words is its own affair.
    content: z.union([z.string(), z.null(), z.array(z.unknown())], { error: 'must be a text' }).optional(),
  },
  { error: 'must be a message, {"role", "content"}' },
)
const messages = z
  .array(message, { error: 'must be a list of messages, {"role", "content"}' })
  .min(1, { error: 'must have one message or more' })
const turn = z.object(
  { from: z.string({ error: 'must be a text, such as "human" or "gpt"' }), value: text },
  { error: 'must be a turn, {"from", "value"}' },
)

/** Names of roles in ShareGPT's files. */
const roles: Readonly<Record<string, string>> = {
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  chatgpt: 'assistant',
  bing: 'assistant',
  system: 'system',
  tool: 'tool',
}

const chat = z.object({ messages, tools: z.unknown().optional() })
const shareGpt = z.object({
  conversations: z
    .array(turn, { error: 'must be a list of turns, {"from", "value"}' })
    .min(1, { error: 'must have one turn or more' }),
  system: z.string({ error: 'must be a text' }).nullish(),
})
const completion = z.object({ prompt: text, completion: text })
const chatCompletion = z.object({ prompt: messages, completion: messages })
const instruction = z.object({
  instruction: text,
  input: z.string({ error: 'must be a text' }).nullish(),
  output: text,
  system: z.string({ error: 'must be a text' }).nullish(),
})
const plain = z.object({ text })

/**
 * A record as an example: `{messages}`, ShareGPT's `{conversations}`, `{prompt, completion}` of texts or of messages,
 * Alpaca's `{instruction, input, output}`, or `{text}`.
 * @throws SyntaxError with the place and the field: `data.jsonl:17: "messages" must be a list of messages, …`.
 */
export function toExample({ place, value }: DataRecord): Example {
  const has = (name: string) => typeof value === 'object' && value !== null && name in value
  const read = <T>(schema: z.ZodType<T>): T => {
    const result = schema.safeParse(value)
    if (result.success) return result.data
    const [issue] = result.error.issues
    throw new SyntaxError(`${place}: "${issue.path.join('.')}" ${issue.message}`)
  }
  if (has('messages')) {
    const { messages, tools } = read(chat)
    return withAnswer(place, 'messages', messages as ChatMessage[], tools)
  }
  if (has('conversations')) {
    const { conversations, system } = read(shareGpt)
    const turns = conversations.map(({ from, value }, i) => {
      const role = roles[from]
      if (!role)
        throw new SyntaxError(
          `${place}: "conversations.${i}.from" must be one of ${Object.keys(roles).join(', ')}, got ${JSON.stringify(from)}`,
        )
      return { role, content: value }
    })
    return withAnswer(place, 'conversations', [...systemTurn(system), ...turns])
  }
  if (has('prompt')) {
    if (Array.isArray((value as { prompt: unknown }).prompt)) {
      const pair = read(chatCompletion)
      return withAnswer(place, 'completion', [...pair.prompt, ...pair.completion] as ChatMessage[])
    }
    return { kind: 'completion', ...read(completion) }
  }
  if (has('instruction')) {
    const { instruction: asked, input, output, system } = read(instruction)
    const content = input ? `${asked}\n\n${input}` : asked
    const turns = [...systemTurn(system), { role: 'user', content }, { role: 'assistant', content: output }]
    return { kind: 'chat', messages: turns }
  }
  if (has('text')) return { kind: 'text', ...read(plain) }
  const fields = typeof value === 'object' && value !== null ? Object.keys(value).join(', ') || 'none' : 'no object'
  throw new SyntaxError(
    `${place}: it must have "messages", "conversations", "prompt" and "completion", "instruction" and "output", or ` +
      `"text"; its fields are: ${fields}`,
  )
}

function systemTurn(system: string | null | undefined): ChatMessage[] {
  return system ? [{ role: 'system', content: system }] : []
}

function withAnswer(place: string, field: string, messages: readonly ChatMessage[], tools?: unknown): Example {
  if (!messages.some(({ role }) => role === 'assistant'))
    throw new SyntaxError(`${place}: "${field}" must have an assistant's message: there is nothing to learn`)
  return { kind: 'chat', messages, ...(tools == null ? {} : { tools }) }
}
