import { readFileSync } from 'node:fs'
import { Command, CommanderError, Help, type Option } from 'commander'
import { exitCodeOf, InterruptedError, messageOf } from '../core/errors.ts'
import { registerChat } from './chat.ts'
import { registerConvert } from './convert.ts'
import { registerDemo } from './demo.ts'
import { registerDistill } from './distill.ts'
import { registerDoctor } from './doctor.ts'
import { registerFinetune } from './finetune.ts'
import { registerGenerate } from './generate.ts'
import { registerKeys } from './keys.ts'
import { registerNiwt } from './niwt.ts'
import { registerPack } from './pack.ts'
import { registerPerplexity } from './perplexity.ts'
import { registerPlay } from './play.ts'
import { registerProfile } from './profile.ts'
import { registerCache, registerPull } from './pull.ts'
import { registerShow } from './show.ts'
import { registerSign } from './sign.ts'
import { registerTune } from './tune.ts'
import { registerVerify } from './verify.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

const help = new Help()
/** An option as help shows it: lists that are empty, and what only a program reads, are no defaults to tell. */
const shown = (option: Option): Option =>
  typeof option.defaultValue === 'object' || option.defaultValue === false
    ? Object.assign(Object.create(option) as Option, { defaultValue: undefined })
    : option

const program = new Command('nexus')
  .description('Distils large models into one small model with skill adapters, on WebGPU')
  .version(version)
  .exitOverride()
  .configureHelp({ optionDescription: (option) => help.optionDescription(shown(option)) })
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'nexus: ')) })

const commands = [
  ...[registerDoctor, registerDemo, registerNiwt, registerPull, registerCache, registerShow, registerConvert],
  ...[
    registerProfile,
    registerDistill,
    registerFinetune,
    registerChat,
    registerGenerate,
    registerPlay,
    registerPerplexity,
    registerTune,
  ],
  ...[registerPack, registerKeys, registerSign, registerVerify],
]
for (const register of commands) register(program)
// Options behind the name of a sub-command are its own, though its parent may have some of the same name.
program.enablePositionalOptions()

// Sub-commands take over what the program was told before they were added.
const inherit = (command: Command) => {
  for (const sub of command.commands) {
    sub.copyInheritedSettings(command)
    inherit(sub)
  }
}
inherit(program)

try {
  await program.parseAsync()
  // Dawn keeps threads of its own: without this the process would wait for them.
  process.exit(process.exitCode ?? 0)
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2)
  const message = messageOf(error)
  if (process.argv.includes('--json'))
    process.stdout.write(`${JSON.stringify({ event: 'error', name: (error as Error).name, message })}\n`)
  else process.stderr.write(`nexus: ${message}\n`)
  if (process.env.NEXUS_DEBUG) console.error(error)
  process.exit(error instanceof InterruptedError ? 130 : exitCodeOf(error))
}
