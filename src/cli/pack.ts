import { type Command, Option } from 'commander'
import type { BundleStorage } from '../bundle/manifest.ts'
import { storages } from '../bundle/manifest.ts'
import { repack, withProgram } from '../bundle/repack.ts'
import { assertVerified } from '../bundle/verify.ts'
import { writeZip } from '../bundle/zip.ts'
import { UsageError } from '../core/errors.ts'
import { exists, FolderFiles, writeFileAtomic } from '../host/files.ts'
import { readProgram } from '../host/program.ts'
import { openBundle } from '../node/host.ts'
import { byteSize, makeOutput } from './output.ts'

interface Options {
  readonly zip?: string
  readonly out?: string
  readonly storage?: BundleStorage
  readonly program?: boolean
  readonly json?: boolean
}

/** Adds `nexus pack`. */
export function registerPack(program: Command): void {
  program
    .command('pack')
    .description('packs a verified bundle again: as a .zip, with its backbone held otherwise, or with this program')
    .argument('<bundle>', 'folder or .zip of the bundle')
    .option('--zip <file>', 'writes a .zip; the same bundle gives the same bytes')
    .option('--out <folder>', 'writes a folder, which must not exist')
    .addOption(new Option('--storage <type>', 'how to hold the backbone’s linear layers').choices(storages))
    .option('--program', 'puts in the command line and the page of this Nexus')
    .option('--json', 'one JSON object')
    .action(pack)
}

async function pack(path: string, { zip, out, storage, program = false, json = false }: Options): Promise<void> {
  const output = makeOutput(json)
  if (zip === undefined && out === undefined) throw new UsageError('Say where to: --zip <file> or --out <folder>')
  if (out !== undefined && exists(out)) throw new UsageError(`Cannot pack into ${out}: it is there already`)
  await using bundle = await openBundle(path)
  const held = storage ? await repack(bundle.files, storage) : bundle.files
  const files = program ? await withProgram(held, readProgram()) : held
  const { bundleId, notes } = await assertVerified(files)
  if (out !== undefined) {
    const folder = new FolderFiles(out)
    for (const name of await files.list()) await folder.write(name, await files.read(name))
  }
  const bytes = zip === undefined ? undefined : await writeZip(files)
  if (zip !== undefined) await writeFileAtomic(zip, bytes!)
  for (const note of notes) output.say(note)
  for (const written of [out, zip].filter((item) => item !== undefined))
    output.print(`${written}: ${bundleId.slice(0, 16)}${written === zip ? `, ${byteSize(bytes!.length)}` : ''}`)
  output.emit('pack', { bundleId, zip, out, zipBytes: bytes?.length })
}
