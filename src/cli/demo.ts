import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { type BundleStorage, storages } from '../bundle/manifest.ts'
import { verifyBundle } from '../bundle/verify.ts'
import { GpuError } from '../core/errors.ts'
import { runNiwt } from '../demo/niwt.ts'
import { demoSettings, quickSettings } from '../demo/settings.ts'
import { controlLines } from '../distill/control-words.ts'
import type { GateReport } from '../distill/gate.ts'
import { controlNames, paths, type StageRecord } from '../distill/run.ts'
import { runReport } from '../distill/run-report.ts'
import { FolderFiles, readJson, removeFolder, writeFileAtomic, writeJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { NexusModel } from '../inference/nexus-model.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { number } from './arguments.ts'
import { gateInOwnProcess } from './gate-process.ts'
import { openGpu } from './open-gpu.ts'
import { byteSize, duration, makeOutput, type Output, table } from './output.ts'

const root = join(import.meta.dirname, '../..')

/** Options of `nexus demo` and `nexus niwt run`. */
export interface DemoOptions {
  readonly folder: string
  readonly fresh?: boolean
  readonly quick?: boolean
  readonly seed: number
  readonly steps?: number
  readonly controls?: boolean
  readonly storage?: BundleStorage
  readonly adapter?: string
  readonly json?: boolean
  readonly contracts: string
  readonly registry: string
  readonly teacher: string
}

/** Adds `nexus demo`. */
export function registerDemo(program: Command): void {
  demoFlags(
    program
      .command('demo')
      .description('distils the built-in teacher: profile, synthesize, distil, gate, pack, generate'),
  )
    .option('--contracts <file>', 'retention contracts', join(root, 'examples/demo/retention_contracts.md'))
    .option(
      '--registry <file>',
      'teacher registry',
      join(root, 'examples/demo/ModelName-Parameters-Category-BestFeature.csv'),
    )
    .option('--teacher <folder>', 'Hugging Face folder of the teacher', join(root, 'models/tiny-teacher'))
    .addHelpText(
      'after',
      '\nA run that was stopped goes on where it was; a finished one shows its result again. --fresh starts over.',
    )
    .action((options: DemoOptions) => runDemo(options))
}

/** The flags that every run has. */
export function demoFlags(command: Command): Command {
  return command
    .option('--folder <path>', 'where the run keeps its files', '.nexus/demo')
    .option('--fresh', 'deletes an earlier run in the folder and starts over')
    .option('--quick', 'a minute’s look at all stages; its student is not trained enough to pass')
    .option('--seed <n>', 'seed of everything random', number, 42)
    .option('--steps <n>', 'steps of joint training', number)
    .option('--controls', 'trains the students that lack a part of the method as well, to compare: five times as long')
    .addOption(new Option('--storage <type>', 'how the backbone is packed and gated').choices(storages))
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
}

/** Runs or resumes all stages, verifies the bundle, generates from it, and shows the table. */
export async function runDemo(options: DemoOptions): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const signal = interruptSignal(output.say)
  if (options.fresh) await removeFolder(options.folder)
  const base = options.quick ? quickSettings : demoSettings
  const settings = {
    ...base,
    distil: { ...base.distil, jointSteps: options.steps ?? base.distil.jointSteps },
    student: { ...base.student, ...(options.storage ? { storage: options.storage } : {}) },
    ...(options.controls && { controls: controlNames }),
  }
  const started = performance.now()
  const { version } = (await readJson(join(root, 'package.json'))) as { version: string }
  using gpu = await openGpu(output, options.adapter)
  const lost = new Promise<never>((_, reject) =>
    gpu.onLost((message) =>
      reject(
        new GpuError(
          `The GPU device was lost (${message}). Run the same command again: it goes on from the last checkpoint.`,
        ),
      ),
    ),
  )
  const records = await Promise.race([
    lost,
    runNiwt({
      folder: options.folder,
      teacher: options.teacher,
      contracts: options.contracts,
      registry: options.registry,
      settings,
      seed: options.seed,
      toolVersion: version,
      licence: await readFile(join(root, 'LICENSE'), 'utf8'),
      gpu,
      onProgress: output.onProgress,
      signal,
      runGate: (folder) => gateInOwnProcess(folder, options.adapter, output, signal),
    }),
  ])
  output.close()
  const teacher = ((await readJson(paths(options.folder, '').registry)) as { name: string }[])[0].name
  await writeFileAtomic(join(options.folder, 'report.html'), await runReport(options.folder, teacher))
  await showResult(options.folder, records, gpu, output, (performance.now() - started) / 1000)
}

async function showResult(
  folder: string,
  records: readonly StageRecord[],
  gpu: Gpu,
  output: Output,
  seconds: number,
): Promise<void> {
  const where = paths(folder, '')
  const report = (await readJson(where.report)) as GateReport
  const files = new FolderFiles(where.bundle)
  const verification = await verifyBundle(files)
  using model = await NexusModel.load(files, { gpu })
  const examples: Record<string, { prompt: string; capability: string; text: string; chosenBy: string }> = {}
  const prompts: Record<string, string> = { add: '+74+98=', code: '#rbach>', prose: 'It was the whale that ' }
  for (const name of model.capabilities) {
    const prompt = prompts[name]
    const { text, capability, chosenBy } = await model.generate({ prompt, maxTokens: 40 })
    examples[name] = { prompt, capability, text, chosenBy }
  }
  const percent = (value: number) => `${(100 * value).toFixed(2)} %`
  const capabilities = Object.entries(report.capabilities)
  const rows = capabilities.map(([name, c]) => [
    name,
    c.metric,
    percent(c.teacher),
    percent(c.student),
    percent(c.ratio),
    percent(c.lower),
    String(c.n),
    percent(report.parameters.adapters[name].ratio),
    c.verdict,
  ])
  const packed = records.find(({ stage }) => stage === '6-pack')!
  const bundleBytes = (packed.result as { bytes: number }).bytes
  output.print(
    `\nGate at ${capabilities.map(([, c]) => c.required).join(', ')} of the teacher, by the one-sided 95 % lower bound; seed ${report.seed}\n`,
  )
  output.print(
    table(['capability', 'metric', 'teacher', 'student', 'retention', 'lower bound', 'n', 'adapter', 'verdict'], rows),
  )
  for (const [i, line] of controlLines(report).entries()) output.print(`${i === 0 ? '\n' : ''}${line}`)
  const { teacher, backbone, backboneRatio } = report.parameters
  output.print(
    `\nParameters  teacher ${teacher}, backbone ${backbone} (${backboneRatio.toFixed(3)} of it); adapters as in the table`,
  )
  output.print(
    `Bundle      ${byteSize(bundleBytes)} in ${where.bundle}, ${verification.ok ? 'verified' : 'NOT VERIFIED'}`,
  )
  output.print(`Router      ${percent(report.routerAccuracy)} of unseen prompts to the right adapter`)
  output.print(`Loss        ${lossTerms(report)}`)
  output.print(`Stages      ${records.map((record) => `${record.stage} ${duration(record.seconds)}`).join('  ')}`)
  output.print(`Ran on      ${gpu.name}, ${duration(seconds)} in all\n`)
  for (const { prompt, capability, text, chosenBy } of Object.values(examples))
    output.print(`${capability} (${chosenBy}):  ${prompt}${text}`)
  const summary = {
    ...report,
    bundle: { path: where.bundle, bytes: bundleBytes, verified: verification.ok },
    stages: records.map(({ stage, seconds }) => ({ stage, seconds })),
    examples,
    seconds,
  }
  await writeJson(join(folder, 'demo_result.json'), summary)
  output.print(`\nWith curves: ${join(folder, 'report.html')}`)
  output.print(`The same as JSON: ${join(folder, 'demo_result.json')}`)
  output.emit('result', summary)
  if (!verification.ok) process.exitCode = 4
  else if (report.verdict !== 'pass') process.exitCode = 1
}

/** `output 1.9 to 0.08, activation …`: sums over the capabilities, first and last step. */
function lossTerms({ loss }: GateReport): string {
  const total = (terms: Readonly<Record<string, number>>, term: string) =>
    Object.entries(terms).reduce((sum, [name, value]) => (name.startsWith(term) ? sum + value : sum), 0)
  const term = (name: string) => `${name} ${total(loss.first, name).toFixed(3)} to ${total(loss.last, name).toFixed(3)}`
  return `${term('output')}, ${term('activation')} (α ${loss.alpha}), ${term('attention')} (β ${loss.beta})`
}
