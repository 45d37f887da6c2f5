import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { readPublicKey } from '../bundle/keys.ts'
import { reportHtml, reportText } from '../bundle/report.ts'
import { type VerifyReport, verifyBundle } from '../bundle/verify.ts'
import { writeFileAtomic } from '../host/files.ts'
import { openBundle } from '../node/host.ts'
import { runIsolated } from './isolation.ts'
import { makeOutput } from './output.ts'

interface Options {
  readonly key?: string
  readonly teacherFree?: boolean
  readonly report?: string
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus verify`. */
export function registerVerify(program: Command): void {
  program
    .command('verify')
    .description('checks that a bundle is whole, unaltered and free of its teacher; exit 4 when it is not')
    .argument('<bundle>', 'folder or .zip of the bundle')
    .option('--key <file>', 'public key that must have signed it')
    .option('--teacher-free', 'also runs it in a process of its own with nothing but the bundle, and no network')
    .option('--report <file>', 'writes the report: .html, .json or .txt', reportFile)
    .option('--adapter <name>', 'GPU for the run: auto, software, or a part of its name')
    .option('--json', 'one JSON object')
    .action(verify)
}

function reportFile(path: string): string {
  if (!['.html', '.json', '.txt'].includes(extname(path)))
    throw new InvalidArgumentError('give a name that ends in .html, .json or .txt.')
  return path
}

async function verify(path: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const key = options.key === undefined ? undefined : await readPublicKey(await readFile(options.key, 'utf8'))
  await using bundle = await openBundle(path)
  let report = await verifyBundle(bundle.files, { key })
  // Only what passed so far is run.
  if (options.teacherFree && report.ok) report = await withRun(report, path, options.adapter)
  if (options.report) await writeFileAtomic(options.report, render(report, extname(options.report)))
  output.print(reportText(report))
  output.emit('verify', report)
  if (!report.ok) process.exitCode = 4
}

async function withRun(report: VerifyReport, path: string, adapter?: string): Promise<VerifyReport> {
  const { fault, answers, notes } = await runIsolated(path, adapter)
  const said = Object.entries(answers).map(([name, text]) => `On its own, ${name} answered ${JSON.stringify(text)}.`)
  const check = { name: 'runs on its own', ok: fault === '', reason: fault }
  return {
    ...report,
    ok: report.ok && check.ok,
    checks: [...report.checks, check],
    notes: [...report.notes, ...said, ...notes],
  }
}

function render(report: VerifyReport, ending: string): string {
  if (ending === '.html') return reportHtml(report)
  return ending === '.json' ? `${JSON.stringify(report, null, 2)}\n` : `${reportText(report)}\n`
}
