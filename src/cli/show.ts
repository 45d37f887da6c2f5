import type { Command } from 'commander'
import { showShape } from '../core/shape.ts'
import { resolveModel } from '../host/model-store.ts'
import { describeModel, groupTensors, type ModelFacts } from '../models/describe.ts'
import { byteSize, makeOutput, table } from './output.ts'

/** Adds `nexus show`. */
export function registerShow(program: Command): void {
  program
    .command('show')
    .description('says what a model’s files hold: architecture, sizes, quantisation, tokenizer, tensors')
    .argument('<model>', 'Hugging Face folder, .safetensors or .gguf file, or the name of a pulled model')
    .option('--tensors', 'every tensor, instead of one line for a kind of layer')
    .option('--json', 'one JSON object')
    .action(show)
}

async function show(name: string, { tensors = false, json = false }: { tensors?: boolean; json?: boolean }) {
  const output = makeOutput(json)
  const facts = await describeModel(await resolveModel(name))
  for (const [label, text] of lines(facts)) output.print(`${label.padEnd(14)}${text}`)
  output.print('')
  if (tensors)
    output.print(
      table(
        ['tensor', 'shape', 'dtype', 'size'],
        facts.tensors.map(({ name, shape, dtype, bytes }) => [
          printable(name),
          showShape(shape),
          dtype,
          byteSize(bytes),
        ]),
      ),
    )
  else
    output.print(
      table(
        ['tensors', 'count', 'shape', 'dtype', 'size'],
        groupTensors(facts.weights).map(({ name, count, shape, sameShape, dtypes, bytes }) => [
          ...[printable(name), String(count), sameShape ? showShape(shape) : `${showShape(shape)} and others`],
          ...[dtypes.join(', '), byteSize(bytes)],
        ]),
      ),
    )
  const { tensors: all, weights, ...rest } = facts
  output.emit('model', { ...rest, tensors: tensors ? all : groupTensors(weights) })
}

/** Names come from files: control characters would reach the terminal. */
const printable = (text: string) => JSON.stringify(text).slice(1, -1)

function lines(facts: ModelFacts): [label: string, text: string][] {
  const { config, tokenizer, name, architecture, quantization, dtypes } = facts
  const share = (bytes: number) => `${((100 * bytes) / Math.max(1, facts.bytes)).toFixed(0)} %`
  const rows: [string, string | undefined][] = [
    ['file', `${facts.path} (${facts.format})`],
    ['name', name && printable(name)],
    ['architecture', architecture && printable(architecture)],
    [
      'parameters',
      `${millions(facts.parameters)}, ${byteSize(facts.bytes)}, ${facts.bitsPerWeight.toFixed(2)} bits each`,
    ],
    ['dtypes', dtypes.map(({ dtype, tensors, bytes }) => `${dtype} ${share(bytes)} (${tensors})`).join(', ')],
    ['quantisation', quantization],
    ['layers', config && `${config.layers} of width ${config.width}, FFN ${config.ffnWidth}`],
    ['heads', config && `${config.heads} of ${config.headSize}, ${config.kvHeads} for keys and values`],
    [
      'context',
      config && `${config.contextLength} tokens${config.slidingWindow ? `, windows of ${config.slidingWindow}` : ''}`,
    ],
    ['vocabulary', config && `${config.vocabularySize}${config.tiedHead ? ', head tied to the embedding' : ''}`],
    ['tokenizer', tokenizer ? `${printable(tokenizer.kind)}, ${tokenizer.size} tokens` : 'none'],
    ['chat template', facts.chatTemplate ? 'yes' : 'no'],
    ['runs', facts.opens ? 'yes' : `no: ${facts.why}`],
  ]
  return rows.filter((row): row is [string, string] => row[1] !== undefined)
}

function millions(count: number): string {
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} M` : `${(count / 1e9).toFixed(2)} G`
}
