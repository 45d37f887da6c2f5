import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Command } from 'commander'
import { parse as parseYaml } from 'yaml'
import { GpuError, messageOf, UsageError } from '../core/errors.ts'
import { parseDistillConfig } from '../distill/config.ts'
import { type ConfiguredRun, configuredRun } from '../distill/config-run.ts'
import { controlLines } from '../distill/control-words.ts'
import type { GateReport } from '../distill/gate.ts'
import { type PipelineRequest, runOf, runPipeline } from '../distill/pipeline.ts'
import { planRun, type RunPlan } from '../distill/plan.ts'
import { runReport } from '../distill/run-report.ts'
import { exists, readJson, removeFolder, writeFileAtomic } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { gateInOwnProcess } from './gate-process.ts'
import { openGpu } from './open-gpu.ts'
import { byteSize, duration, makeOutput, type Output, table } from './output.ts'

const root = join(import.meta.dirname, '../..')

interface Options {
  readonly dryRun?: boolean
  readonly fresh?: boolean
  readonly out?: string
  readonly teacher?: string
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus distill`. */
export function registerDistill(program: Command): void {
  program
    .command('distill')
    .description('distils a teacher into a smaller student with an adapter a capability, as a config file says')
    .argument('<config>', '.yaml or .json; docs/distillation.md describes it, docs/distill.schema.json checks it')
    .option('--dry-run', 'says what the run would take, from one measured step, and does not run it')
    .option('--out <folder>', 'folder of the run, instead of the config’s')
    .option('--teacher <model>', 'folder, GGUF file or name in the cache, instead of the config’s')
    .option('--fresh', 'deletes an earlier run in the folder and starts over')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nA run that was stopped, in whatever way, goes on where it was. --fresh starts over.')
    .action(run)
}

/** Reads a config file. @throws SyntaxError naming the file and the key. */
async function readConfig(path: string, { out, teacher }: Options) {
  if (!exists(path)) throw new UsageError(`Cannot distill: there is no ${path}`)
  const text = await readFile(path, 'utf8')
  let value: unknown
  try {
    value = path.endsWith('.json') ? JSON.parse(text) : parseYaml(text)
  } catch (error) {
    throw new SyntaxError(`Cannot read ${path}: ${messageOf(error)}`)
  }
  if (typeof value === 'object' && value !== null)
    value = { ...value, ...(out !== undefined && { out }), ...(teacher !== undefined && { teacher }) }
  return parseDistillConfig(basename(path), value)
}

async function run(path: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const config = await readConfig(path, options)
  const signal = interruptSignal(output.say)
  if (options.fresh && !options.dryRun) await removeFolder(config.out)
  const configured = await configuredRun(config, path, resolveModel)
  using gpu = await openGpu(output, options.adapter)
  const lost = new Promise<never>((_, reject) =>
    gpu.onLost((message) =>
      reject(
        new GpuError(`The GPU device was lost (${message}). Run the same command again: it goes on where it was.`),
      ),
    ),
  )
  const request: PipelineRequest = {
    ...configured,
    toolVersion: ((await readJson(join(root, 'package.json'))) as { version: string }).version,
    licence: `The weights were made from ${configured.teachers[0].name}: its licence holds for them.\n`,
    ...{ gpu, signal, onProgress: output.onProgress },
    runGate: (folder) => gateInOwnProcess(folder, options.adapter, output, signal),
  }
  if (options.dryRun) {
    const plan = await Promise.race([lost, planRun(runOf(request), configured.teacher)])
    output.close()
    showPlan(plan, configured, output)
    return
  }
  const started = performance.now()
  const records = await Promise.race([lost, runPipeline(request)])
  output.close()
  const reportPath = join(config.out, 'report.html')
  await writeFileAtomic(reportPath, await runReport(config.out, configured.teachers[0].name))
  await showResult(config.out, reportPath, output)
  output.print(`Stages      ${records.map(({ stage, seconds }) => `${stage} ${duration(seconds)}`).join('  ')}`)
  output.print(`Ran on      ${gpu.name}, ${duration((performance.now() - started) / 1000)} in all`)
}

function showPlan(plan: RunPlan, { teachers }: ConfiguredRun, output: Output): void {
  const { teacher, student, memory, capture, training, seconds } = plan
  const millions = (count: number) => `${(count / 1e6).toFixed(count < 1e7 ? 2 : 1)} M`
  const all = Object.values(seconds).reduce((sum, value) => sum + value, 0)
  const runs = training.students === 1 ? '' : `, ${training.students} students of the same budget`
  const rows = [
    [
      'teacher',
      `${teachers[0].name}, ${millions(teacher.parameters)} parameters, ${byteSize(teacher.bytes)} on the GPU`,
    ],
    [
      'student',
      `${millions(student.parameters)} parameters, ${student.ratio.toFixed(3)} of the teacher; ` +
        `each adapter at most ${millions(student.adapterParameters)}`,
    ],
    [
      'memory',
      `${byteSize(memory.peak)} at the peak; training ${byteSize(memory.resident)} to stay and ${byteSize(memory.pass)} a pass`,
    ],
    ['capture', `${capture.tokens} tokens, ${capture.bytesPerToken.toFixed(1)} bytes each, ${byteSize(capture.bytes)}`],
    ['disk', `${byteSize(plan.disk)}, captures and checkpoints among it`],
    [
      'training',
      `${training.steps} steps of ${training.tokensPerStep} tokens, ${duration(training.secondsPerStep)} each${runs}`,
    ],
    [
      'time',
      `${duration(all)}: ${Object.entries(seconds)
        .map(([name, value]) => `${name} ${duration(value)}`)
        .join(', ')}`,
    ],
  ]
  output.print(table(['what', 'how much'], rows))
  output.emit('plan', plan)
}

async function showResult(folder: string, reportPath: string, output: Output): Promise<void> {
  const report = (await readJson(join(folder, 'verify_report.json'))) as GateReport
  const percent = (value: number) => `${(100 * value).toFixed(2)} %`
  const rows = Object.entries(report.capabilities).map(([name, c]) => [
    ...[name, c.metric, percent(c.teacher), percent(c.student), percent(c.ratio), percent(c.lower)],
    ...[percent(c.corrected), String(c.n), c.verdict],
  ])
  const header = [
    'capability',
    'metric',
    'teacher',
    'student',
    'retention',
    'lower bound',
    'above chance',
    'n',
    'verdict',
  ]
  output.print(`\n${table(header, rows)}\n`)
  for (const line of controlLines(report)) output.print(line)
  const { teacher, backbone, backboneRatio } = report.parameters
  output.print(`Parameters  teacher ${teacher}, backbone ${backbone} (${backboneRatio.toFixed(3)} of it)`)
  output.print(`Report      ${reportPath}`)
  output.emit('result', { ...report, report: reportPath })
  if (report.verdict !== 'pass') process.exitCode = 1
}
