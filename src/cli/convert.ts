import { type Command, InvalidArgumentError, Option } from 'commander'
import { interruptSignal } from '../host/interrupt.ts'
import { resolveModel } from '../host/model-store.ts'
import { type ConvertOptions, conversionTypes, convertModel } from '../models/convert.ts'
import { byteSize, duration, makeOutput } from './output.ts'

interface Flags extends Pick<ConvertOptions, 'to' | 'rest'> {
  readonly shardSize?: number
  readonly json?: boolean
}

/** Adds `nexus convert`. */
export function registerConvert(program: Command): void {
  program
    .command('convert')
    .description('writes a model as a Hugging Face folder, in another dtype or quantised')
    .argument('<in>', 'Hugging Face folder, .gguf file, or the name of a pulled model')
    .argument('<out>', 'folder to write; it must not be there yet')
    .addOption(
      new Option('--to <type>', 'dtype of all tensors, or quantisation of the linear layers')
        .choices(conversionTypes)
        .makeOptionMandatory(),
    )
    .addOption(
      new Option('--rest <type>', 'dtype of what is not quantised').choices(['f16', 'bf16', 'f32']).default('bf16'),
    )
    .option('--shard-size <size>', 'most bytes of a file: 5GB, 500MB, or a number', bytes)
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nnf4, nf4-double and int8 are the layouts of bitsandbytes, which transformers loads.')
    .action(convert)
}

/** A size such as 500MB. @throws InvalidArgumentError, which ends with exit code 2. */
function bytes(text: string): number {
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?)\s*([KMG]?)B?$/i.exec(text.trim()) ?? []
  const size = Number(digits) * ({ '': 1, K: 1e3, M: 1e6, G: 1e9 }[unit.toUpperCase()] ?? Number.NaN)
  if (!(size >= 1)) throw new InvalidArgumentError('give a size such as 5GB or 500MB.')
  return Math.floor(size)
}

async function convert(from: string, folder: string, { to, rest, shardSize, json = false }: Flags): Promise<void> {
  const output = makeOutput(json)
  const signal = interruptSignal(output.say)
  const started = performance.now()
  try {
    const converted = await convertModel(await resolveModel(from), folder, {
      ...{ to, signal, onProgress: output.onProgress },
      ...(rest && { rest }),
      ...(shardSize !== undefined && { shardBytes: shardSize }),
    })
    output.close()
    const seconds = (performance.now() - started) / 1000
    output.print(
      `${folder}: ${(converted.parameters / 1e6).toFixed(1)} M parameters, ${converted.quantized} matrices quantised, ${byteSize(converted.bytes)} in ${converted.files.length} file${converted.files.length === 1 ? '' : 's'}, ${duration(seconds)}`,
    )
    output.emit('converted', { ...converted, seconds })
  } finally {
    output.close()
  }
}
