// bin/nexus_cli.mjs of a bundle: it answers with the bundle that it lies in, with Node and the package `webgpu` alone.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { exitCodeOf, Gpu, messageOf, NexusModel, openGpuRoot, readPublicKey, UsageError } from '../inference/index.ts'

const usage = `node bin/nexus_cli.mjs --prompt <text> [options]
  --capability <name>    adapter to use; the router chooses unless told
  --enable-restricted    loads the adapters that the bundle marks as restricted too
  --key <file>           public key that must have signed the bundle
  --max-tokens <n>       most tokens to make; 64 unless told
  --temperature <t>      0, which is the default, takes the likeliest token
  --seed <n>             seed of the draws; 42 unless told
  --adapter <name>       GPU to use: auto, software, or a part of its name
  --json                 one JSON object
  --help                 this text

It needs Node 22 or newer and the package webgpu, installed in a folder above this one: npm install webgpu`

const options = {
  prompt: { type: 'string' },
  capability: { type: 'string' },
  'enable-restricted': { type: 'boolean', default: false },
  key: { type: 'string' },
  'max-tokens': { type: 'string', default: '64' },
  temperature: { type: 'string', default: '0' },
  seed: { type: 'string', default: '42' },
  adapter: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const

function read() {
  try {
    return parseArgs({ options }).values
  } catch (error) {
    throw new UsageError(messageOf(error))
  }
}

function number(name: 'max-tokens' | 'temperature' | 'seed', text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new UsageError(`--${name} must be a number, 0 or larger, got ${JSON.stringify(text)}`)
  return value
}

async function main(): Promise<void> {
  const values = read()
  if (values.help) {
    console.log(usage)
    return
  }
  const { prompt, capability, json } = values
  if (prompt === undefined) throw new UsageError(`Say what to answer: --prompt <text>\n\n${usage}`)
  const limits = {
    maxTokens: number('max-tokens', values['max-tokens']),
    temperature: number('temperature', values.temperature),
    seed: number('seed', values.seed),
  }
  const key = values.key === undefined ? undefined : await readPublicKey(readFileSync(values.key, 'utf8'))
  const root = await openGpuRoot({ adapter: values.adapter, install: false }).catch(
    (error: Error & { code?: string }) => {
      if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
      throw new Error('The package webgpu is not installed. In a folder above this bundle, run: npm install webgpu')
    },
  )
  using gpu = await Gpu.open(root)
  const enableRestricted = values['enable-restricted']
  using model = await NexusModel.load(join(import.meta.dirname, '..'), { gpu, key, enableRestricted })
  const stream = model.stream({ prompt, capability, ...limits })
  for (;;) {
    const { done, value } = await stream.next()
    if (!done) {
      if (!json) process.stdout.write(value)
      continue
    }
    process.stdout.write(json ? `${JSON.stringify(value)}\n` : '\n')
    return
  }
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(messageOf(error))
    process.exit(exitCodeOf(error))
  },
)
