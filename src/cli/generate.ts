import { readFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { readPublicKey } from '../bundle/keys.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { NexusModel } from '../inference/nexus-model.ts'
import { openBundle } from '../node/host.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput } from './output.ts'

interface Options {
  readonly prompt: string
  readonly capability?: string
  readonly key?: string
  readonly restricted?: boolean
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus generate`. */
export function registerGenerate(program: Command): void {
  program
    .command('generate')
    .description('continues a prompt with a bundle')
    .argument('<bundle>', 'folder or .zip of the bundle')
    .requiredOption('--prompt <text>', 'text to continue')
    .option('--capability <name>', 'adapter to use; the router chooses unless told')
    .option('--key <file>', 'public key that must have signed the bundle')
    .option('--restricted', 'loads the adapters that the bundle marks as restricted too')
    .option('--max-tokens <n>', 'most tokens to make', number, 64)
    .option('--temperature <t>', '0 takes the likeliest token', number, 0)
    .option('--seed <n>', 'seed of the draws', number, 42)
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object')
    .action(generate)
}

/** A number from the command line. @throws InvalidArgumentError, which ends with exit code 2. */
export function number(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError('give a number, 0 or larger.')
  return value
}

async function generate(path: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const key = options.key === undefined ? undefined : await readPublicKey(await readFile(options.key, 'utf8'))
  await using bundle = await openBundle(path)
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, options.adapter)
  using model = await NexusModel.load(bundle.files, { gpu, key, enableRestricted: options.restricted })
  const { prompt, capability, maxTokens, temperature, seed } = options
  const answer = await model.generate({ prompt, capability, maxTokens, temperature, seed, signal })
  output.print(answer.text)
  output.say(
    `(${answer.capability}, chosen by the ${answer.chosenBy}; ${answer.tokens} tokens, ${answer.tokensPerSecond.toFixed(1)} a second)`,
  )
  output.emit('answer', answer)
}
