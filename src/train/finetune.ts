import { join } from 'node:path'
import { z } from 'zod'
import { GpuError, InterruptedError } from '../core/errors.ts'
import { writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { exists, readJson, removeFolder, writeFileAtomic, writeJson } from '../host/files.ts'
import { CheckpointStore } from './checkpoint-store.ts'
import { EarlyStop } from './early-stop.ts'
import { FinetuneBench, takeApart } from './finetune-bench.ts'
import type { StepData } from './finetune-data.ts'
import { type FinetuneOptions, openBase, openRows, startOfDay } from './finetune-inputs.ts'
import { checkFinetune } from './finetune-settings.ts'
import { type StepRecord, type StepTime, trainLoop } from './loop.ts'
import { Replays } from './replays.ts'
import { schedules } from './schedule.ts'
import { TrainLog } from './train-log.ts'

/** What a fine-tuning run reports. */
export interface FinetuneResult {
  /** Steps that were run, those before an interruption too. */
  readonly steps: number
  /** The step whose adapter was written: the best evaluation's, or the last. */
  readonly written: number
  /** Loss of the first and the last step. */
  readonly first: number
  readonly last: number
  /** Loss on the rows kept for evaluation, of the adapter that was written. */
  readonly evaluation?: number
  readonly parameters: number
  readonly adapter: string
}

const runSchema = z.object({ started: z.string(), settings: z.record(z.string(), z.unknown()) })

/**
 * Trains a low-rank adapter for a model on a data file, and writes it as PEFT reads it: adapter_model.safetensors and
 * adapter_config.json, beside log.jsonl and checkpoints. A run that was stopped goes on where it was, to the same result.
 * @throws RangeError when `out` holds a run with other settings, data or base; SyntaxError when a file is at fault.
 * @throws InterruptedError when the signal is aborted, after a checkpoint of what was done.
 */
export async function finetune(options: FinetuneOptions): Promise<FinetuneResult> {
  const { gpu, out, settings, signal, onProgress } = options
  if (options.fresh)
    for (const name of ['finetune.json', 'log.jsonl', 'checkpoints', 'data', ...adapterFiles])
      await removeFolder(join(out, name))
  await using base = await openBase(options)
  checkFinetune(settings, base.config)
  const record = join(out, 'finetune.json')
  const before = exists(record) ? runSchema.parse(await readJson(record)) : undefined
  const now = before ? new Date(before.started) : startOfDay()
  await using rows = await openRows(options, base, now)
  const { keep, checkpointEvery, ...decisive } = settings
  const asked = { ...decisive, model: base.hash, encoding: base.encodingHash, data: rows.summary.dataHash }
  if (before) expectSame(out, before.settings, asked)
  else await writeJson(record, { started: now.toISOString(), settings: asked })

  const store = new CheckpointStore(join(out, 'checkpoints'), { keep })
  const found = await store.latest()
  const saved = found && takeApart(found)
  const log = await TrainLog.resume(join(out, 'log.jsonl'), saved?.step ?? 0)
  using bench = await FinetuneBench.open(options, base, rows, saved)
  using replays = new Replays(gpu)
  const { steps } = bench
  const stopper = new EarlyStop(settings.patience, saved?.stopper)
  const schedule = schedules[settings.schedule]({
    ...{ lr: settings.lr, steps, warmup: Math.ceil(settings.warmup * steps) },
  })
  let done = saved?.step ?? 0
  let savedAt = done
  let [first, last] = [saved?.first ?? Number.NaN, saved?.last ?? Number.NaN]
  let current: StepData
  let started = performance.now()
  let hostMilliseconds = 0
  let evaluated: Readonly<Record<string, string>> = {}

  const save = async (score?: number) => {
    const tensors = new Map<string, CpuTensor>()
    for (const [name, tensor] of await bench.adapter.toTensors('F32')) tensors.set(`adapter/${name}`, tensor)
    for (const [name, tensor] of await bench.optimiser.save()) tensors.set(`optimiser/${name}`, tensor)
    const state = JSON.stringify({ stopper: stopper.save(), first, last })
    await store.save(done, writeSafetensors(tensors, { state }), score)
    savedAt = done
  }
  const after = async (step: StepRecord, time: StepTime) => {
    hostMilliseconds = time.hostMilliseconds
    done = step.step + 1
    if (step.step === 0) first = step.loss
    last = step.loss
    const evaluates = bench.data.sizes.eval > 0 && (done % settings.evalEvery === 0 || done === steps)
    const evaluation = evaluates ? await bench.evaluate(replays) : undefined
    if (evaluation !== undefined) evaluated = { 'held out': evaluation.toFixed(4) }
    await log.add({ ...step, tokens: current.used, ...(evaluates && { evaluation }) })
    const stop = evaluation !== undefined && stopper.add(evaluation)
    if (evaluates || done % checkpointEvery === 0 || done === steps) await save(evaluation)
    return stop ? 'stop' : undefined
  }
  if (!stopper.stopped)
    try {
      await trainLoop({
        ...{ task: 'finetune', gpu, from: done, steps, lr: schedule, after, onProgress, ...(signal && { signal }) },
        accumulate: { parts: settings.accumulate, parameters: [...bench.adapter.parameters.values()] },
        async prepare(index) {
          current = await bench.data.step(index)
          bench.optimiser.begin(schedule(index))
          started = performance.now()
        },
        replays,
        feed: (_, part) => bench.feed(current.parts[part], current.total),
        largest: (step) => bench.largest(step),
        loss(step) {
          const { total, rows } = bench.loss(step)
          return { total, terms: { loss: total }, rows }
        },
        update: (step, gradients) => bench.optimiser.update(step, gradients),
        describe: (index, rows) => bench.data.places(index, rows),
        figures: () => ({
          ...evaluated,
          'tokens/s': ((1000 * current.used) / (performance.now() - started)).toFixed(0),
          host: `${hostMilliseconds.toFixed(0)} ms`,
          memory: `${Math.ceil(gpu.memory.peakBytes / 2 ** 20)} MiB`,
        }),
      })
    } catch (error) {
      if (error instanceof InterruptedError && done > savedAt) await save()
      if (error instanceof GpuError && savedAt > 0) error.message += `. The checkpoint of step ${savedAt} is kept`
      throw error
    }

  const best = await store.best()
  const chosen = best ? takeApart(best).part('adapter/') : await bench.adapter.toTensors('F32')
  const { tensors, config } = await bench.peft(chosen, base.config.layers, options.model)
  await writeFileAtomic(join(out, adapterFiles[0]), writeSafetensors(tensors, { format: 'pt' }))
  await writeFileAtomic(join(out, adapterFiles[1]), config)
  const { parameterCount } = bench.adapter
  return {
    ...{ steps: done, written: best?.step ?? done, first, last, parameters: parameterCount },
    ...(best?.score === undefined ? {} : { evaluation: best.score }),
    adapter: join(out, adapterFiles[0]),
  }
}

const adapterFiles = ['adapter_model.safetensors', 'adapter_config.json'] as const

/** What is compared by its hash, in words. */
const hashed: Readonly<Record<string, string>> = {
  model: 'the hash of the base model (configuration and weights)',
  encoding: 'the hash of the tokenizer and the chat template',
  data: 'the hash of the data',
}

/** @throws RangeError naming the first setting that differs from those that the run in `out` began with. */
function expectSame(out: string, before: Readonly<Record<string, unknown>>, now: Readonly<Record<string, unknown>>) {
  for (const [name, value] of Object.entries(now))
    if (JSON.stringify(before[name]) !== JSON.stringify(value))
      throw new RangeError(
        `Cannot go on with the run in ${out}: ${hashed[name] ?? name} was ${JSON.stringify(before[name])} and is now ` +
          `${JSON.stringify(value)}. Give what it began with, another folder, or --fresh`,
      )
}
