import { type Command, InvalidArgumentError, Option } from 'commander'
import { z } from 'zod'
import { UsageError } from '../core/errors.ts'
import { exists, readJson } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { type WeightStorage, weightStorages } from '../models/decoder-weights.ts'
import { type ProfileSettings, profileDefaults } from '../profile/profile.ts'
import { writeReport } from '../profile/report.ts'
import { runMerge, runProfile } from '../profile/run.ts'
import type { Profile } from '../profile/schema.ts'
import { number, several, whole } from './arguments.ts'
import { openGpu } from './open-gpu.ts'
import { duration, makeOutput, type Output, table } from './output.ts'

interface Options extends Omit<ProfileSettings, 'keepState'> {
  readonly data: string[]
  readonly capability: string[]
  readonly config?: string
  readonly samples: number
  readonly length: number
  readonly seed: number
  readonly storage: WeightStorage
  readonly out: string
  readonly shard: { index: number; count: number }
  readonly keepState?: boolean
  readonly fresh?: boolean
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus profile`, `nexus profile merge` and `nexus profile report`. */
export function registerProfile(program: Command): void {
  const profile = program
    .command('profile')
    .description('reads a teacher on samples of each capability: ranks, head and layer importance, and a report')
    .argument('<teacher>', 'GGUF file, Hugging Face folder, or the name of a pulled model')
    .option('--data <file>', 'data of a capability: .jsonl, .parquet or .txt; once for each --capability', several, [])
    .option('--capability <name>', 'name of a capability; once for each --data', several, [])
    .option('--config <file>', '.json: {"capabilities": [{"name", "data"}, …]}, instead of the pairs')
    .option('--samples <n>', 'samples a capability', whole, 200)
    .option('--length <n>', 'most tokens of a sample', whole, 128)
    .option('--seed <n>', 'seed of everything random', whole, 42)
    .addOption(new Option('--storage <kind>', 'how the teacher is held').choices(weightStorages).default('nf4'))
    .option('--out <folder>', 'niwt_stage2_output/profiles/<teacher>/ is made in it', '.')
    .option('--shard <i/n>', 'one of n shares of the samples, to be merged later; keeps the state', shard, {
      index: 0,
      count: 1,
    })
    .option('--batch <n>', 'samples a batch', whole, profileDefaults.batch)
    .option('--share <share>', 'what the PCAs may cost, of the forward pass', number, profileDefaults.share)
    .option('--memory <bytes>', 'GPU memory for the PCAs; less takes more passes', whole, profileDefaults.memory)
    .option('--head-samples <n>', 'samples for head importance', whole, profileDefaults.headSamples)
    .option('--ablate <n>', 'layers to confirm by ablation, from both ends', whole, profileDefaults.ablate)
    .option('--held-out-tokens <n>', 'most held-out tokens for ablation', whole, profileDefaults.heldOutTokens)
    .option('--save-every <n>', 'batches between saves; 0 saves every two minutes', whole, profileDefaults.saveEvery)
    .option('--keep-state', 'keeps what merging needs, several times the size of the profile')
    .option('--fresh', 'deletes an earlier profile of these capabilities and starts over')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nA profile that was stopped goes on where it was, to the same files.')
    .action(run)
  profile
    .command('merge')
    .description('one profile of parts that were made on several machines, with --shard or --keep-state')
    .argument('<parts...>', 'folders of parts: …/profiles/<teacher>, or of one capability')
    .requiredOption('--teacher <model>', 'the teacher of all parts: outputs are made of its weights')
    .requiredOption('--out <folder>', 'niwt_stage2_output/profiles/<teacher>/ is made in it')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .action(merge)
  profile
    .command('report')
    .description('makes report.html again, from the profiles in a folder')
    .argument('<folder>', '…/profiles/<teacher>')
    .option('--json', 'one JSON object')
    .action(report)
}

function shard(text: string): Options['shard'] {
  const [, i, n] = /^(\d+)\/(\d+)$/.exec(text) ?? []
  const [index, count] = [Number(i) - 1, Number(n)]
  if (!(index >= 0 && index < count)) throw new InvalidArgumentError('give 1/3, 2/3 or 3/3, say.')
  return { index, count }
}

const configSchema = z.object({
  capabilities: z.array(z.object({ name: z.string(), data: z.string() })).min(1),
})

async function capabilitiesOf({ data, capability, config }: Options): Promise<{ name: string; data: string }[]> {
  if (config !== undefined) {
    const result = configSchema.safeParse(await readJson(config))
    if (result.success) return result.data.capabilities
    const [issue] = result.error.issues
    throw new UsageError(`Cannot profile: ${config}: ${issue.path.join('.')}: ${issue.message}`)
  }
  if (data.length === 0 || data.length !== capability.length)
    throw new UsageError(
      `Cannot profile: give as many --data as --capability, one or more; got ${data.length} and ${capability.length}`,
    )
  return capability.map((name, i) => ({ name, data: data[i] }))
}

async function run(name: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const capabilities = await capabilitiesOf(options)
  const teacher = await resolveModel(name)
  for (const path of capabilities.map(({ data }) => data))
    if (!exists(path)) throw new UsageError(`Cannot profile: there is no ${path}`)
  for (const { name } of capabilities)
    if (!/^[\w.-]+$/.test(name) || capabilities.filter((other) => other.name === name).length > 1)
      throw new UsageError(`Cannot profile the capability ${name}: names are letters, digits, _ and -, each once`)
  const { samples, length, seed, storage, out, fresh = false } = options
  const { batch, share, memory, headSamples, ablate, heldOutTokens, saveEvery } = options
  const keepState = options.keepState ?? options.shard.count > 1
  const settings = {
    ...profileDefaults,
    batch,
    share,
    memory,
    headSamples,
    ablate,
    heldOutTokens,
    saveEvery,
    keepState,
  }
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, options.adapter)
  const started = performance.now()
  const result = await runProfile({
    ...{ gpu, teacher, capabilities, samples, length, seed, storage, out, fresh, settings, shard: options.shard },
    ...{ onProgress: output.onProgress, signal },
  })
  output.close()
  show(result.profiles, output)
  output.print(`Profile  ${result.folder}, in ${duration((performance.now() - started) / 1000)}`)
  output.emit('result', { folder: result.folder })
}

async function merge(
  parts: string[],
  options: { teacher: string; out: string; adapter?: string; json?: boolean },
): Promise<void> {
  const { out, adapter, json } = options
  const output = makeOutput(json ?? false)
  const teacher = await resolveModel(options.teacher)
  for (const path of parts) if (!exists(path)) throw new UsageError(`Cannot merge: there is no ${path}`)
  const signal = interruptSignal(output.say)
  using gpu = await openGpu(output, adapter)
  const result = await runMerge({ gpu, teacher, parts, out, onProgress: output.onProgress, signal })
  output.close()
  show(result.profiles, output)
  output.print(`Profile  ${result.folder}`)
  output.emit('result', { folder: result.folder })
}

async function report(folder: string, options: { json?: boolean }): Promise<void> {
  const output = makeOutput(options.json ?? false)
  if (!exists(folder)) throw new UsageError(`Cannot report: there is no ${folder}`)
  const path = await writeReport(folder)
  output.print(`Report   ${path}`)
  output.emit('result', { report: path })
}

/** A line for each capability. */
function show(profiles: readonly Profile[], output: Output): void {
  const rows = profiles.map((profile) => {
    const ranks = Object.entries(profile.ranks).filter(([name]) => name.endsWith('output'))
    const correlation = profile.scoreCorrelation === null ? '-' : profile.scoreCorrelation.toFixed(2)
    return [
      ...[profile.capability, String(profile.samples), String(profile.data.tokens), String(profile.data.stride)],
      ...[String(Math.max(...ranks.map(([, { rank }]) => rank))), profile.keyLayers.join(' '), correlation],
    ]
  })
  const header = ['capability', 'samples', 'tokens', 'one of', 'largest rank', 'key layers', 'score ~ ablation']
  output.print(table(header, rows))
}
