import { writeFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { newKeyPair, readPublicKey, type Scheme, schemes } from '../bundle/keys.ts'
import { UsageError } from '../core/errors.ts'
import { exists } from '../host/files.ts'
import { makeOutput } from './output.ts'

/** Adds `nexus keys`. */
export function registerKeys(program: Command): void {
  program
    .command('keys')
    .description('keys that sign bundles')
    .command('new')
    .description('makes a key pair: <file>, private and readable by you alone, and <file>.pub')
    .argument('<file>', 'where to write the private key')
    .addOption(new Option('--scheme <name>', 'signature scheme').choices(schemes).default(schemes[0]))
    .option('--json', 'one JSON object')
    .action(newKeys)
}

async function newKeys(file: string, { scheme, json = false }: { scheme: Scheme; json?: boolean }): Promise<void> {
  const output = makeOutput(json)
  const publicFile = `${file}.pub`
  const there = [file, publicFile].find(exists)
  if (there) throw new UsageError(`Cannot make keys: ${there} is there, and a key is never written over`)
  const { privatePem, publicPem } = await newKeyPair(scheme)
  // Never readable by others, not even for a moment; `wx` fails where someone was quicker.
  await writeFile(file, privatePem, { mode: 0o600, flag: 'wx' })
  await writeFile(publicFile, publicPem, { flag: 'wx' })
  const { hint } = await readPublicKey(publicPem)
  output.print(`${file} signs: keep it to yourself.\n${publicFile} verifies: give it to those who use your bundles.`)
  output.emit('keys', { scheme, privateFile: file, publicFile, hint })
}
