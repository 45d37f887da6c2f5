import { type Command, InvalidArgumentError } from 'commander'
import { interruptSignal } from '../host/interrupt.ts'
import { bytesOf, listStored, listUnfinished, removeStored } from '../host/model-store.ts'
import { pullModel } from '../models/pull.ts'
import { byteSize, makeOutput, table } from './output.ts'

interface PullFlags {
  readonly file?: string
  readonly revision?: string
  readonly sha256?: string
  readonly json?: boolean
}

/** Adds `nexus pull`. */
export function registerPull(program: Command): void {
  program
    .command('pull')
    .description('brings a model into the cache; from then on its name works offline, wherever a model is wanted')
    .argument('<model>', 'owner/name of the hub, the URL of a .gguf file, or a path')
    .option('--file <name>', 'which GGUF file of several: its name, or a part of it such as Q4_K_M')
    .option('--revision <name>', 'branch, tag or commit')
    .option('--sha256 <hex>', 'what the file of a URL must hash to', digest)
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      '\nA pull that was stopped goes on where it was. HF_ENDPOINT names another hub; HF_TOKEN is sent to it alone.\nSee also: nexus cache ls, nexus cache rm',
    )
    .action(pull)
}

/** Adds `nexus cache ls|rm`. */
export function registerCache(program: Command): void {
  const cache = program.command('cache').description('the models that were pulled')
  cache
    .command('ls')
    .description('lists them, and pulls that were not finished')
    .option('--json', 'one JSON object')
    .action(list)
  cache
    .command('rm')
    .description('deletes a model from the cache')
    .argument('<model>', 'its name')
    .option('--json', 'one JSON object')
    .action(remove)
}

function digest(text: string): string {
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new InvalidArgumentError('a sha256 has 64 digits of 0-9 and a-f.')
  return text
}

async function pull(what: string, { json = false, ...flags }: PullFlags): Promise<void> {
  const output = makeOutput(json)
  const signal = interruptSignal(output.say)
  try {
    const { model, how } = await pullModel(what, { ...flags, onProgress: output.onProgress, signal })
    output.close()
    if (how === 'offline') output.say('The hub cannot be reached; this is the model as it was pulled before.')
    if (how === 'present') output.say('It is there already, and up to date.')
    output.print(model.path)
    const { length } = model.files
    output.say(`${model.id}: ${length} file${length === 1 ? '' : 's'}, ${byteSize(bytesOf(model))}`)
    output.emit('pulled', { ...model, how, bytes: bytesOf(model) })
  } finally {
    output.close()
  }
}

async function list({ json = false }: { json?: boolean }): Promise<void> {
  const output = makeOutput(json)
  const [models, unfinished] = [await listStored(), await listUnfinished()]
  const rows = [
    ...models.map((model) => [model.id, byteSize(bytesOf(model)), model.pulledAt.slice(0, 10), model.path]),
    ...unfinished.map(({ id, bytes }) => [id, byteSize(bytes), 'unfinished', `go on with: nexus pull ${id}`]),
  ]
  output.print(rows.length > 0 ? table(['model', 'size', 'pulled', 'path'], rows) : 'No model was pulled yet.')
  output.emit('cache', { models: models.map((model) => ({ ...model, bytes: bytesOf(model) })), unfinished })
}

async function remove(name: string, { json = false }: { json?: boolean }): Promise<void> {
  const output = makeOutput(json)
  const { id, bytes } = await removeStored(name)
  output.print(`${id} is deleted; ${byteSize(bytes)} are free again.`)
  output.emit('removed', { id, bytes })
}
