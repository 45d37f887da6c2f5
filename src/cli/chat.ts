import { join } from 'node:path'
import { stdin, stdout } from 'node:process'
import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { Adapter } from '../adapters/adapter.ts'
import { UsageError } from '../core/errors.ts'
import type { ChatMessage } from '../formats/chat.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { readBytes, readJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { Engine } from '../inference/engine.ts'
import { generateText } from '../inference/generate.ts'
import { Decoder } from '../models/decoder.ts'
import type { WeightStorage } from '../models/decoder-weights.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { number } from './generate.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput, type Output } from './output.ts'

interface Options {
  readonly prompt?: string
  readonly system?: string
  readonly raw?: boolean
  readonly storage: string
  readonly context: number
  readonly maxTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly seed: number
  readonly stop: string[]
  readonly lora?: string
  readonly adapter?: string
  readonly json?: boolean
}

/** How `nexus` can hold the weights of a model. */
export const storages = ['f32', 'f16', 'nf4', 'nf4-double', 'int8']

/** Adds `nexus chat`. */
export function registerChat(program: Command): void {
  program
    .command('chat')
    .description('talks with a model: a Hugging Face folder or a GGUF file')
    .argument('<model>', 'folder, .gguf, or the name of a model that was pulled')
    .option('--prompt <text>', 'one message; its answer is printed, and that is all')
    .option('--system <text>', 'what the model is told before the conversation')
    .option('--lora <folder>', 'a PEFT adapter to put on the model')
    .option('--raw', 'continues the prompt as it stands, without the model’s chat template')
    .option('--storage <kind>', `how the weights are held: ${storages.join(', ')}`, 'f16')
    .option('--context <n>', 'most tokens of the conversation', number, 2048)
    .option('--max-tokens <n>', 'most tokens of an answer', number, 256)
    .option('--temperature <t>', '0 takes the likeliest token', number, 0.7)
    .option('--top-k <n>', 'only the n likeliest tokens; 0 is all', number, 0)
    .option('--top-p <p>', 'only the likeliest tokens that together have this probability', number, 0.95)
    .option('--min-p <p>', 'only tokens with this share of the likeliest one’s probability', number, 0)
    .option('--repetition-penalty <r>', 'weakens tokens that were there before; 1 does not', number, 1)
    .option('--seed <n>', 'seed of the draws', number, 42)
    .option('--stop <text>', 'ends an answer; may be given several times', (text, all: string[]) => [...all, text], [])
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .action(chat)
}

async function chat(name: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  if (!storages.includes(options.storage))
    throw new UsageError(`Cannot hold weights as ${options.storage}: choose ${storages.join(', ')}`)
  const signal = interruptSignal(output.say)
  await using files = await openModel(await resolveModel(name))
  using gpu = await openGpu(output, options.adapter)
  const half = options.storage === 'f16' && !gpu.capabilities.f16
  if (half) output.say('This adapter has no f16: the weights are held as f32.')
  const storage = (half ? 'f32' : options.storage) as WeightStorage
  using model = await Decoder.open(gpu, files.weights, { storage, onProgress: output.onProgress, signal })
  output.close()
  const context = Math.min(options.context, files.config.contextLength)
  using adapter = options.lora === undefined ? undefined : await readAdapter(gpu, files.config, options.lora)
  using engine = new Engine(model, { contextLength: context })
  const talk = new Conversation(files, engine, adapter, options, output, signal)
  if (options.prompt !== undefined) await talk.answer(options.prompt)
  else await converse(talk, output, signal)
}

/** Puts a PEFT adapter of a folder on the GPU. */
export async function readAdapter(gpu: Gpu, config: ModelConfig, folder: string): Promise<Adapter> {
  const settings = await readJson(join(folder, 'adapter_config.json'))
  const { tensors } = parseSafetensors(await readBytes(join(folder, 'adapter_model.safetensors')))
  return Adapter.fromPeft(gpu, folder, config, settings, tensors)
}

/** Lines from a person or a pipe, until they end or say so. */
async function converse(talk: Conversation, output: Output, signal: AbortSignal): Promise<void> {
  const lines = createInterface({ input: stdin, output: stdin.isTTY ? stdout : undefined, prompt: '> ' })
  output.say('Write a message. /reset forgets the conversation, /quit ends.')
  signal.addEventListener('abort', () => lines.close())
  lines.prompt()
  for await (const line of lines) {
    const text = line.trim()
    if (text === '/quit' || signal.aborted) break
    if (text === '/reset') talk.reset()
    else if (text !== '') await talk.answer(text)
    if (signal.aborted) break
    lines.prompt()
  }
  lines.close()
}

/** Messages so far, and how the next answer is made. */
class Conversation {
  readonly #files: OpenModel
  readonly #engine: Engine
  readonly #updates: Adapter | undefined
  readonly #options: Options
  readonly #output: Output
  readonly #signal: AbortSignal
  #messages: ChatMessage[] = []

  constructor(
    files: OpenModel,
    engine: Engine,
    updates: Adapter | undefined,
    options: Options,
    output: Output,
    signal: AbortSignal,
  ) {
    this.#files = files
    this.#engine = engine
    this.#updates = updates
    this.#options = options
    this.#output = output
    this.#signal = signal
    this.reset()
  }

  reset(): void {
    const { system } = this.#options
    this.#messages = system === undefined ? [] : [{ role: 'system', content: system }]
  }

  /** Prints the answer to `text` as it is made. */
  async answer(text: string): Promise<void> {
    const { tokenizer, chat, bosId } = this.#files
    const { maxTokens, stop, raw, temperature, topK, topP, minP, repetitionPenalty, seed } = this.#options
    this.#messages.push({ role: 'user', content: text })
    const ids =
      raw || !chat
        ? [...(bosId === undefined ? [] : [bosId]), ...tokenizer.encode(text)]
        : chat.encode(tokenizer, this.#messages)
    const room = this.#engine.contextLength - ids.length
    if (room < 1)
      throw new RangeError(
        `Cannot answer: the conversation has ${ids.length} tokens and the context ${this.#engine.contextLength}. ` +
          'Use /reset or a larger --context.',
      )
    const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed }
    const options = {
      ...sampling,
      stop,
      maxTokens: Math.min(maxTokens, room),
      signal: this.#signal,
      updates: this.#updates,
    }
    const started = performance.now()
    let answer = ''
    let tokens = 0
    for await (const piece of generateText(this.#engine, tokenizer, ids, options)) {
      answer += piece.text
      tokens = piece.tokens
      if (!this.#output.json) stdout.write(piece.text)
      this.#output.emit('piece', piece)
    }
    this.#messages.push({ role: 'assistant', content: answer })
    const tokensPerSecond = tokens / ((performance.now() - started) / 1000)
    if (!this.#output.json) stdout.write('\n')
    const full = maxTokens > room && tokens >= room
    this.#output.say(`(${tokens} tokens, ${tokensPerSecond.toFixed(1)} a second${full ? '; the context is full' : ''})`)
    this.#output.emit('answer', { text: answer, promptTokens: ids.length, tokens, tokensPerSecond })
  }
}
