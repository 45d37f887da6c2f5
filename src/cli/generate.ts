import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stdin, stdout } from 'node:process'
import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { readPublicKey } from '../bundle/keys.ts'
import { InterruptedError, UsageError } from '../core/errors.ts'
import { jsonGrammar } from '../grammar/json-schema.ts'
import { SchemaError } from '../grammar/json-schema-facts.ts'
import { exists, readJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import type { AnswerForm } from '../inference/constraints.ts'
import type { Finish } from '../inference/generate.ts'
import { NexusModel } from '../inference/nexus-model.ts'
import { openBundle } from '../node/host.ts'
import { count, number, several } from './arguments.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput } from './output.ts'

interface Options {
  readonly prompt?: string
  readonly capability?: string
  readonly key?: string
  readonly restricted?: boolean
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  readonly stop: string[]
  readonly schema?: string
  readonly choice: string[]
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus generate`, also called `nexus run`. */
export function registerGenerate(program: Command): void {
  program
    .command('generate')
    .alias('run')
    .description('continues prompts with a bundle')
    .argument('<bundle>', 'folder or .zip of the bundle')
    .option('--prompt <text>', 'text to continue; without it every line of the input is one')
    .option('--capability <name>', 'adapter to use; the router chooses unless told')
    .option('--key <file>', 'public key that must have signed the bundle')
    .option('--restricted', 'loads the adapters that the bundle marks as restricted too')
    .option('--max-tokens <n>', 'most tokens to make', count, 64)
    .option('--temperature <t>', '0 takes the likeliest token', number, 0)
    .option('--seed <n>', 'seed of the draws', number, 42)
    .option('--stop <text>', 'ends the answer; may be given several times', several, [])
    .option('--schema <file>', 'JSON Schema that the answer follows')
    .option('--choice <text>', 'a text that the answer may be; give two or more', several, [])
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object')
    .action(generate)
}

/**
 * What an answer is bound to, from the options of a command.
 * @throws UsageError when there are two kinds, or the schema is none that can be followed.
 */
export async function answerForm({ schema: path, choice }: { schema?: string; choice: string[] }): Promise<AnswerForm> {
  if (path !== undefined && choice.length > 0) throw new UsageError('Cannot follow --schema and --choice at once')
  if (choice.length > 0) return { choices: choice }
  if (path === undefined) return {}
  const schema = await readJson(path)
  try {
    // Before a model is loaded for it.
    jsonGrammar(schema)
  } catch (error) {
    throw error instanceof SchemaError ? new UsageError(`${path}: ${error.message}`) : error
  }
  return { schema }
}

/**
 * Says how an answer ended, where that is not by itself.
 * @throws InterruptedError when the person stopped it.
 */
export function reportFinish(finish: Finish, form: AnswerForm, say: (line: string) => void): void {
  if (finish === 'cancelled') throw new InterruptedError('Stopped before the answer was whole')
  if (finish === 'stop') return
  const bound = form.schema !== undefined || form.choices !== undefined
  say(`The answer was cut before its end: its tokens are used up${bound ? ', so it does not follow its form' : ''}.`)
  if (bound) process.exitCode = 1
}

async function generate(path: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const form = await answerForm(options)
  const key = options.key === undefined ? undefined : await readPublicKey(await readFile(options.key, 'utf8'))
  const holds = (name: string) => exists(join(path, name))
  if (path.endsWith('.gguf') || (holds('config.json') && !holds('manifest.json')))
    throw new UsageError(
      `${path} is a model, not a bundle. Continue a text with: nexus chat ${path} --raw --prompt <text>`,
    )
  await using bundle = await openBundle(path)
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, options.adapter)
  using model = await NexusModel.load(bundle.files, { gpu, key, enableRestricted: options.restricted })
  const { prompt, capability, maxTokens, temperature, seed, stop } = options
  const settings = { capability, maxTokens, temperature, seed, stop, signal, ...form }
  for await (const line of prompt === undefined ? linesOf(signal) : [prompt]) {
    const answer = await model.generate({ prompt: line, ...settings })
    output.print(answer.text)
    output.say(
      `(${answer.capability}, chosen by the ${answer.chosenBy}; ${answer.tokens} tokens, ${answer.tokensPerSecond.toFixed(1)} a second)`,
    )
    output.emit('answer', answer)
    reportFinish(answer.finish, form, output.say)
  }
}

/** Lines of a person or a pipe, without empty ones, until they end. */
async function* linesOf(signal: AbortSignal): AsyncGenerator<string> {
  const lines = createInterface({ input: stdin, output: stdin.isTTY ? stdout : undefined, prompt: '> ' })
  signal.addEventListener('abort', () => lines.close())
  // A terminal in readline's hands sends no signal for Ctrl-C.
  lines.on('SIGINT', () => lines.close())
  const ask = () => stdin.isTTY && lines.prompt()
  ask()
  for await (const line of lines) {
    if (line.trim() !== '') yield line
    ask()
  }
}
