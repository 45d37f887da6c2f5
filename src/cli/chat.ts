import { join } from 'node:path'
import { stdin, stdout } from 'node:process'
import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { Adapter, addAdapters, checkAdapter, foldPeft } from '../adapters/adapter.ts'
import type { ChatMessage } from '../formats/chat.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { readBytes, readJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import type { AnswerForm } from '../inference/constraints.ts'
import { Engine } from '../inference/engine.ts'
import { type Finish, generateText } from '../inference/generate.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { count, number, several } from './arguments.ts'
import { answerForm, reportFinish } from './generate.ts'
import { openDecoder, precisionOption, storageOption, type WeightOptions } from './open-decoder.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput, type Output } from './output.ts'

interface Options extends WeightOptions {
  readonly prompt?: string
  readonly system?: string
  readonly raw?: boolean
  readonly context: number
  readonly maxTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly seed: number
  readonly stop: string[]
  readonly lora: string[]
  readonly schema?: string
  readonly choice: string[]
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus chat`. */
export function registerChat(program: Command): void {
  program
    .command('chat')
    .description('talks with a model: a Hugging Face folder or a GGUF file')
    .argument('<model>', 'folder, .gguf, or the name of a model that was pulled')
    .option('--prompt <text>', 'one message; its answer is printed, and that is all')
    .option('--system <text>', 'what the model is told before the conversation')
    .option('--lora <folder>', 'a PEFT adapter to put on the model; several add up', several, [])
    .option('--raw', 'continues the prompt as it stands, without the model’s chat template')
    .addOption(storageOption('f16'))
    .addOption(precisionOption())
    .option('--context <n>', 'most tokens of the conversation', count, 2048)
    .option('--max-tokens <n>', 'most tokens of an answer', count, 256)
    .option('--temperature <t>', '0 takes the likeliest token', number, 0.7)
    .option('--top-k <n>', 'only the n likeliest tokens; 0 is all', number, 0)
    .option('--top-p <p>', 'only the likeliest tokens that together have this probability', number, 0.95)
    .option('--min-p <p>', 'only tokens with this share of the likeliest one’s probability', number, 0)
    .option('--repetition-penalty <r>', 'weakens tokens that were there before; 1 does not', number, 1)
    .option('--seed <n>', 'seed of the draws', number, 42)
    .option('--stop <text>', 'ends an answer; may be given several times', several, [])
    .option('--schema <file>', 'JSON Schema that each answer follows')
    .option('--choice <text>', 'a text that an answer may be; give two or more', several, [])
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .action(chat)
}

async function chat(name: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const form = await answerForm(options)
  const signal = interruptSignal(output.say)
  await using files = await openModel(await resolveModel(name))
  using gpu = await openGpu(output, options.adapter)
  using model = await openDecoder(output, gpu, files, options, signal)
  output.close()
  const context = Math.min(options.context, files.config.contextLength)
  using adapter = options.lora.length === 0 ? undefined : await readAdapters(gpu, files.config, options.lora)
  using engine = new Engine(model, { contextLength: context })
  const talk = new Conversation(files, engine, adapter, { ...options, form }, output)
  if (options.prompt !== undefined) reportFinish(await talk.answer(options.prompt, signal), form, output.say)
  else await converse(talk, output, signal)
}

/** The adapters of all folders as one. @throws SyntaxError naming the folder whose adapter does not fit. */
export async function readAdapters(gpu: Gpu, config: ModelConfig, folders: readonly string[]): Promise<Adapter> {
  const all: ReadonlyMap<string, CpuTensor>[] = []
  for (const folder of folders) {
    const settings = await readJson(join(folder, 'adapter_config.json'))
    const { tensors } = parseSafetensors(await readBytes(join(folder, 'adapter_model.safetensors')))
    const folded = foldPeft(settings, tensors, config)
    checkAdapter(folder, config, folded)
    all.push(folded)
  }
  return Adapter.load(gpu, folders.join(' + '), config, addAdapters(all))
}

/** Lines from a person or a pipe, until they end or say so. Ctrl-C stops an answer, and between answers all. */
async function converse(talk: Conversation, output: Output, signal: AbortSignal): Promise<void> {
  const lines = createInterface({ input: stdin, output: stdin.isTTY ? stdout : undefined, prompt: '> ' })
  let answering: AbortController | undefined
  output.say('Write a message. /reset forgets the conversation, /quit ends, Ctrl-C stops an answer.')
  signal.addEventListener('abort', () => lines.close())
  // A terminal in readline's hands sends no signal for Ctrl-C.
  lines.on('SIGINT', () => (answering ? answering.abort() : lines.close()))
  // A pipe needs no prompt, and may be closed while the lines that it brought are still answered.
  const prompt = () => stdin.isTTY && lines.prompt()
  prompt()
  for await (const line of lines) {
    const text = line.trim()
    if (text === '/quit' || signal.aborted) break
    if (text === '/reset') talk.reset()
    else if (text !== '') {
      answering = new AbortController()
      try {
        await talk.answer(text, AbortSignal.any([signal, answering.signal]))
      } catch (error) {
        // Too long a message is no reason to lose the conversation.
        if (!(error instanceof RangeError)) throw error
        output.say(error.message)
        output.emit('error', { name: error.name, message: error.message })
      }
      answering = undefined
    }
    if (signal.aborted) break
    prompt()
  }
  lines.close()
}

type TalkOptions = Options & { readonly form: AnswerForm }

/** Messages so far, and how the next answer is made. */
class Conversation {
  readonly #files: OpenModel
  readonly #engine: Engine
  readonly #updates: Adapter | undefined
  readonly #options: TalkOptions
  readonly #output: Output
  #messages: ChatMessage[] = []

  constructor(files: OpenModel, engine: Engine, updates: Adapter | undefined, options: TalkOptions, output: Output) {
    this.#files = files
    this.#engine = engine
    this.#updates = updates
    this.#options = options
    this.#output = output
    this.reset()
  }

  reset(): void {
    const { system } = this.#options
    this.#messages = system === undefined ? [] : [{ role: 'system', content: system }]
  }

  /**
   * Prints the answer to `text` as it is made.
   * @throws RangeError when the conversation passes the context; then the message is forgotten.
   */
  async answer(text: string, signal: AbortSignal): Promise<Finish> {
    const { tokenizer, chat, bosId } = this.#files
    const { maxTokens, stop, raw, form, temperature, topK, topP, minP, repetitionPenalty, seed } = this.#options
    this.#messages.push({ role: 'user', content: text })
    const ids =
      raw || !chat
        ? [...(bosId === undefined ? [] : [bosId]), ...tokenizer.encode(text)]
        : chat.encode(tokenizer, this.#messages)
    const room = this.#engine.contextLength - ids.length
    if (room < 1) {
      this.#messages.pop()
      throw new RangeError(
        `Cannot answer: the conversation has ${ids.length} tokens and the context ${this.#engine.contextLength}. ` +
          'Use /reset or a larger --context.',
      )
    }
    const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed }
    const options = {
      ...sampling,
      stop,
      maxTokens: Math.min(maxTokens, room),
      signal,
      ...form,
      updates: this.#updates,
    }
    const started = performance.now()
    let answer = ''
    let tokens = 0
    let finish: Finish = 'stop'
    for await (const piece of generateText(this.#engine, tokenizer, ids, options)) {
      answer += piece.text
      tokens = piece.tokens
      finish = piece.finish ?? finish
      if (!this.#output.json) stdout.write(piece.text)
      if (piece.text !== '') this.#output.emit('piece', { text: piece.text, tokens })
    }
    this.#messages.push({ role: 'assistant', content: answer })
    const tokensPerSecond = tokens / ((performance.now() - started) / 1000)
    if (!this.#output.json) stdout.write('\n')
    const cut = maxTokens > room ? '; the context is full' : '; cut at --max-tokens'
    const ended = { stop: '', length: cut, cancelled: '; stopped' }[finish]
    this.#output.say(`(${tokens} tokens, ${tokensPerSecond.toFixed(1)} a second${ended})`)
    this.#output.emit('answer', { text: answer, promptTokens: ids.length, tokens, tokensPerSecond, finish })
    return finish
  }
}
