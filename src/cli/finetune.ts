import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { UsageError } from '../core/errors.ts'
import { exists } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { weightStorages } from '../models/decoder-weights.ts'
import { finetune } from '../train/finetune.ts'
import { type FinetunePlan, planFinetune } from '../train/finetune-plan.ts'
import { type FinetuneSettings, finetuneDefaults as usual } from '../train/finetune-settings.ts'
import { schedules } from '../train/schedule.ts'
import { number, whole } from './arguments.ts'
import { openGpu } from './open-gpu.ts'
import { byteSize, duration, makeOutput, type Output, table } from './output.ts'

/** What the command line can say: the settings of a run, two of them in its own form, and where things are. */
interface Options extends Omit<FinetuneSettings, 'alpha' | 'stateBits'> {
  readonly model: string
  readonly data: string
  readonly out: string
  readonly alpha?: number
  readonly optimizerBits: '8' | '32'
  readonly chatTemplate?: string
  readonly dryRun?: boolean
  readonly fresh?: boolean
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus finetune`. */
export function registerFinetune(program: Command): void {
  program
    .command('finetune')
    .description('trains a low-rank adapter for a model on a data file, and writes it as PEFT reads it')
    .requiredOption('--model <name>', 'the base: a Hugging Face folder, a GGUF file, or the name of a pulled model')
    .requiredOption('--data <file>', '.jsonl, .parquet or .txt: messages, ShareGPT, prompt and completion, or text')
    .requiredOption('--out <folder>', 'where the adapter, the log and the checkpoints go')
    .option('--rank <n>', 'rank of the updates', whole, usual.rank)
    .option('--alpha <a>', 'the updates are scaled by alpha / rank; twice the rank unless told', number)
    .option('--targets <names>', 'linear layers, with commas: q_proj,v_proj; all unless told', names, [])
    .addOption(
      new Option('--base <storage>', 'of the base’s linear layers; nf4 is QLoRA')
        .choices(weightStorages)
        .default(usual.base),
    )
    .addOption(new Option('--precision <type>', 'of activations').choices(['f32', 'f16']).default(usual.precision))
    .option('--lr <rate>', 'highest learning rate', number, usual.lr)
    .addOption(
      new Option('--schedule <name>', 'how the rate falls').choices(Object.keys(schedules)).default(usual.schedule),
    )
    .option('--warmup <share>', 'share of the steps over which the rate rises', number, usual.warmup)
    .option('--batch <n>', 'rows a batch', whole, usual.batch)
    .option('--accumulate <n>', 'batches a step', whole, usual.accumulate)
    .option('--epochs <n>', 'times the data is seen', number, usual.epochs)
    .option('--steps <n>', 'steps, instead of epochs; 0 is as many as the epochs take', whole, usual.steps)
    .option('--length <n>', 'most tokens of a row', whole, usual.length)
    .option('--no-packing', 'one sequence a row')
    .option('--seed <n>', 'seed of everything random', whole, usual.seed)
    .option('--eval-share <share>', 'share of the records kept for evaluation', number, usual.evalShare)
    .option('--eval-every <n>', 'steps between evaluations', whole, usual.evalEvery)
    .option('--patience <n>', 'evaluations without improvement after which to stop; 0 never', whole, usual.patience)
    .option('--checkpoint-every <n>', 'steps between checkpoints', whole, usual.checkpointEvery)
    .option('--keep <n>', 'newest checkpoints kept, beside the best', whole, usual.keep)
    .option('--gradient-checkpoint', 'computes layers twice to save memory', usual.gradientCheckpoint)
    .option('--decay <d>', 'decoupled weight decay', number, usual.decay)
    .option('--clip <norm>', 'largest norm of the gradient; 0 does not clip', number, usual.clip)
    .addOption(
      new Option('--optimizer-bits <n>', 'of the moments').choices(['8', '32']).default(String(usual.stateBits)),
    )
    .option('--chat-template <file>', 'a Jinja template instead of the model’s own')
    .option('--dry-run', 'says what the run would take, and does not run it')
    .option('--fresh', 'deletes an earlier run in the folder and starts over')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nA run that was stopped goes on where it was, to the same result. --fresh starts over.')
    .action(run)
}

function names(text: string): string[] {
  return text.split(',').map((name) => name.trim())
}

async function run(options: Options): Promise<void> {
  const { model, data, out, json = false } = options
  const output = makeOutput(json)
  await resolveModel(model)
  for (const path of [data, ...(options.chatTemplate ? [options.chatTemplate] : [])])
    if (!exists(path)) throw new UsageError(`Cannot finetune: there is no ${path}`)
  const settings = settingsOf(options)
  const chatTemplate = options.chatTemplate && (await readFile(options.chatTemplate, 'utf8'))
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, options.adapter)
  const common = { gpu, model, data, out, settings, onProgress: output.onProgress, signal }
  const work = { ...common, ...(chatTemplate === undefined ? {} : { chatTemplate }) }
  if (options.dryRun) {
    const plan = await planFinetune(work)
    output.close()
    showPlan(plan, output)
    return
  }
  const started = performance.now()
  const result = await finetune({ ...work, fresh: options.fresh ?? false })
  output.close()
  const evaluation = result.evaluation === undefined ? '' : `, ${result.evaluation.toFixed(4)} on held-out rows`
  output.print(`Loss     ${result.first.toFixed(4)} to ${result.last.toFixed(4)} in ${result.steps} steps${evaluation}`)
  output.print(`Adapter  ${result.parameters} parameters, of step ${result.written}, in ${result.adapter}`)
  output.print(`Time     ${duration((performance.now() - started) / 1000)}`)
  output.emit('result', result)
}

/** The settings among the options. */
function settingsOf(options: Options): FinetuneSettings {
  const { alpha = 2 * options.rank, optimizerBits } = options
  const given = Object.fromEntries(Object.keys(usual).map((name) => [name, options[name as keyof Options]]))
  return { ...(given as unknown as FinetuneSettings), alpha, stateBits: optimizerBits === '8' ? 8 : 32 }
}

function showPlan(plan: FinetunePlan, output: Output): void {
  const { rows, residentBytes, passBytes } = plan
  const { forward, backward, update } = plan.seconds
  const seconds = (count: number) => `${count.toPrecision(3)} s`
  const cut = plan.cut > 0 ? `, ${plan.cut} cut off: give a larger --length to keep them` : ''
  output.print(
    table(
      ['what', 'how much'],
      [
        ['rows', `${rows.train} to learn from, ${rows.eval} for evaluation`],
        ['tokens', `${plan.tokens}, of which ${plan.learned} are learned${cut}`],
        ['steps', String(plan.steps)],
        ['adapter', `${plan.parameters} parameters`],
        [
          'memory',
          `${byteSize(residentBytes + passBytes)}: ${byteSize(residentBytes)} to stay, ${byteSize(passBytes)} a pass`,
        ],
        ['disk', byteSize(plan.diskBytes)],
        ['time', `${duration(plan.secondsInAll)}, ${duration(plan.secondsPerStep)} a step with full rows`],
        ['a batch', `${seconds(forward)} forward, ${seconds(backward)} backward, ${seconds(update)} for the update`],
      ],
    ),
  )
  output.emit('plan', plan)
}
