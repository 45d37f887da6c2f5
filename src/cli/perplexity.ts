import type { Command } from 'commander'
import { UsageError } from '../core/errors.ts'
import { readBytes } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { measurePerplexity } from '../inference/perplexity.ts'
import { openModel } from '../models/open-model.ts'
import { whole } from './arguments.ts'
import { readAdapters } from './chat.ts'
import { openDecoder, precisionOption, storageOption, type WeightOptions } from './open-decoder.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput } from './output.ts'

interface Options extends WeightOptions {
  readonly context?: number
  readonly stride?: number
  readonly tokens?: number
  readonly lora?: string
  readonly adapter?: string
  readonly json?: boolean
}

/** Adds `nexus perplexity`. */
export function registerPerplexity(program: Command): void {
  program
    .command('perplexity')
    .description('measures how well a model predicts a text; lower is better')
    .argument('<model>', 'folder, .gguf, or the name of a model that was pulled')
    .argument('<text>', 'a file of plain text')
    .addOption(storageOption('f32'))
    .addOption(precisionOption())
    .option('--context <n>', 'tokens of a window; 1024 or what the model takes unless told', whole)
    .option('--stride <n>', 'tokens from one window to the next; as many as a window has unless told', whole)
    .option('--tokens <n>', 'only the first n tokens of the text', whole)
    .option('--lora <folder>', 'a PEFT adapter to put on the model')
    .option('--adapter <name>', 'GPU to use: auto, software, or a part of its name')
    .option('--json', 'one JSON object a line')
    .action(perplexity)
}

async function perplexity(name: string, file: string, options: Options): Promise<void> {
  const output = makeOutput(options.json ?? false)
  const signal = interruptSignal(output.say)
  const text = new TextDecoder().decode(await readBytes(file))
  await using files = await openModel(await resolveModel(name))
  const ids = files.tokenizer.encode(text).slice(0, options.tokens)
  if (ids.length < 2) throw new UsageError(`Cannot measure ${file}: it has ${ids.length} tokens and needs two or more`)
  using gpu = await openGpu(output, options.adapter)
  const { onProgress } = output
  using model = await openDecoder(output, gpu, files, options, signal)
  using updates = options.lora === undefined ? undefined : await readAdapters(gpu, files.config, [options.lora])
  const { context, stride } = options
  const started = performance.now()
  const settings = { context, stride, bosId: files.bosId, updates, onProgress, signal }
  const { perplexity, losses, windows } = await measurePerplexity(model, ids, settings)
  output.close()
  const seconds = (performance.now() - started) / 1000
  const count = losses.length
  const loss = losses.reduce((sum, value) => sum + value, 0) / count
  // Of the mean loss, the tokens taken as independent: for a person who compares two models by one text.
  const deviation = Math.sqrt(losses.reduce((sum, value) => sum + (value - loss) ** 2, 0) / count / count)
  output.print(`perplexity ${perplexity.toFixed(4)} ± ${(perplexity * deviation).toFixed(4)}`)
  output.say(
    `(${count} tokens predicted in ${windows} window${windows === 1 ? '' : 's'}, ${(count / seconds).toFixed(0)} a second)`,
  )
  output.emit('perplexity', { perplexity, loss, deviation, tokens: count, windows, tokensPerSecond: count / seconds })
}
