import type { Command } from 'commander'
import { verifyBundle } from '../bundle/verify.ts'
import { BundleError } from '../core/errors.ts'
import { exists, FolderFiles } from '../host/files.ts'
import { makeOutput } from './output.ts'

/** Adds `nexus verify`. */
export function registerVerify(program: Command): void {
  program
    .command('verify')
    .description('checks that a bundle is whole, unaltered and free of its teacher; exit 4 when it is not')
    .argument('<bundle>', 'folder of the bundle')
    .option('--json', 'one JSON object')
    .action(async (folder: string, { json = false }: { json?: boolean }) => {
      const output = makeOutput(json)
      if (!exists(folder)) throw new BundleError(`Cannot verify ${folder}: there is no such folder`)
      const report = await verifyBundle(new FolderFiles(folder))
      for (const { name, ok, reason } of report.checks)
        output.print(`${ok ? 'ok    ' : 'FAILED'}  ${name}${reason && `: ${reason}`}`)
      output.print(
        report.ok ? `The bundle is whole: ${report.bundleId.slice(0, 16)}` : 'The bundle is not to be trusted.',
      )
      output.emit('verify', report)
      if (!report.ok) process.exitCode = 4
    })
}
