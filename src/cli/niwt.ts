import { join } from 'node:path'
import type { Command } from 'commander'
import { UsageError } from '../core/errors.ts'
import { runGate } from '../distill/pipeline.ts'
import { type StageRecord, stageNames } from '../distill/run.ts'
import { exists, readJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { type DemoOptions, demoFlags, runDemo } from './demo.ts'
import { openGpu } from './open-gpu.ts'
import { duration, makeOutput, table } from './output.ts'

/** Adds `nexus niwt run|status|gate`. */
export function registerNiwt(program: Command): void {
  const niwt = program.command('niwt').description('the stages of a distillation run')
  demoFlags(niwt.command('run').description('starts or resumes a run'))
    .requiredOption('--contracts <file>', 'retention_contracts.md')
    .requiredOption('--registry <file>', 'ModelName-Parameters-Category-BestFeature.csv')
    .requiredOption('--teacher <folder>', 'Hugging Face folder of the teacher')
    .action((options: DemoOptions) => runDemo(options))
  niwt
    .command('status')
    .description('says which stages of a run are done')
    .option('--folder <path>', 'folder of the run', '.nexus/demo')
    .option('--json', 'one JSON object')
    .action(status)
  niwt
    .command('gate')
    .description('runs the gate of a run, from its files alone')
    .option('--folder <path>', 'folder of the run', '.nexus/demo')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .action(gate)
}

async function status({ folder, json = false }: { folder: string; json?: boolean }): Promise<void> {
  const output = makeOutput(json)
  if (!exists(folder))
    throw new UsageError(`There is no run in ${folder}; start one with: npx nexus demo --folder ${folder}`)
  const rows: string[][] = []
  for (const stage of stageNames) {
    const path = join(folder, 'stages', `${stage}.json`)
    const record = exists(path) ? ((await readJson(path)) as StageRecord) : undefined
    rows.push([stage, record ? 'done' : 'open', record ? duration(record.seconds) : '-'])
  }
  output.print(table(['stage', 'state', 'time'], rows))
  output.emit('status', { folder, stages: rows.map(([stage, state]) => ({ stage, state })) })
}

async function gate({
  folder,
  adapter,
  json = false,
}: {
  folder: string
  adapter?: string
  json?: boolean
}): Promise<void> {
  const output = makeOutput(json)
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, adapter)
  const { verdict } = await runGate(folder, gpu, output.onProgress, signal)
  output.close()
  output.print(`The gate says: ${verdict}`)
  output.emit('gate', { verdict })
}
