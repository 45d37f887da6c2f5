import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { readPrivateKey } from '../bundle/keys.ts'
import { signaturePath } from '../bundle/layout.ts'
import { signManifest } from '../bundle/signature.ts'
import { openVerified } from '../bundle/verify.ts'
import { BundleError } from '../core/errors.ts'
import { exists, FolderFiles } from '../host/files.ts'
import { makeOutput } from './output.ts'

/** Adds `nexus sign`. */
export function registerSign(program: Command): void {
  program
    .command('sign')
    .description(`signs a bundle: writes ${signaturePath} into its folder`)
    .argument('<bundle>', 'folder of the bundle')
    .requiredOption('--key <file>', 'private key, made by `nexus keys new`')
    .option('--json', 'one JSON object')
    .action(sign)
}

async function sign(folder: string, { key: file, json = false }: { key: string; json?: boolean }): Promise<void> {
  const output = makeOutput(json)
  const key = await readPrivateKey(await readFile(file, 'utf8'))
  if (!exists(folder) || !statSync(folder).isDirectory())
    throw new BundleError(`Cannot sign ${folder}: it is no folder. Sign the folder, then pack it as .zip.`)
  const files = new FolderFiles(folder)
  // An older signature may be one of another manifest: it is replaced.
  const unsigned = {
    list: async () => (await files.list()).filter((path) => path !== signaturePath),
    size: (path: string) => files.size(path),
    read: (path: string) => files.read(path),
  }
  const { manifest } = await openVerified(unsigned)
  await files.write(signaturePath, await signManifest(manifest, key))
  output.print(`Signed ${manifest.bundle_id.slice(0, 16)} by ${key.scheme} key ${key.hint.slice(0, 16)}`)
  output.emit('sign', { bundleId: manifest.bundle_id, scheme: key.scheme, hint: key.hint })
}
