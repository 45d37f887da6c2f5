import { basename, dirname, isAbsolute, resolve } from 'node:path'
import { RuleError } from '../core/errors.ts'
import { fnv1a, type Random } from '../core/random.ts'
import { exists, sha256 } from '../host/files.ts'
import { type OpenModel, openModel } from '../models/open-model.ts'
import { padRowsTo, type Row } from '../train/batch.ts'
import type { Capability } from '../train/capability.ts'
import { readChoices } from '../train/choice-file.ts'
import { dataCapability, encodingOf, type ModelEncoding } from '../train/data-capability.ts'
import type { DistillConfig } from './config.ts'
import type { PipelineRequest } from './pipeline.ts'
import { controlNames, type NiwtSettings } from './run.ts'
import { modelParameters } from './synthesize.ts'

/** What of a {@link PipelineRequest} a config file says. */
export type ConfiguredRun = Omit<
  PipelineRequest,
  'toolVersion' | 'licence' | 'gpu' | 'onProgress' | 'signal' | 'runGate'
>

/**
 * The run that a config file asks for: reads its data with the tokenizer of the student.
 * @param path of the config file; names of data files are meant from its folder.
 * @param resolveModel finds a model by path or by its name in the cache.
 * @throws SyntaxError with the file and line of data that is at fault, or the vocabulary that differs.
 */
export async function configuredRun(
  config: DistillConfig,
  path: string,
  resolveModel: (name: string) => Promise<string>,
): Promise<ConfiguredRun> {
  const at = (file: string) => (isAbsolute(file) ? file : resolve(dirname(path), file))
  const find = (name: string) => resolveModel(exists(at(name)) ? at(name) : name)
  const teacher = await find(config.teacher)
  const backbone = config.student.backbone && (await find(config.student.backbone))
  await using model = await openModel(backbone ?? teacher)
  if (backbone && config.capture.targets !== 'text') await expectSameVocabulary(teacher, model.tokenizerJson, backbone)
  const text = config.capture.targets === 'text'
  const all = async (of: OpenModel) => {
    const capabilities: Capability[] = []
    for (const [i, own] of config.capabilities.entries()) {
      if (text && own.choices === undefined)
        throw new SyntaxError(
          `Cannot score capabilities.${i} by its data: two vocabularies cut it into different tokens. Give it choices`,
        )
      const found = { ...own, data: at(own.data), ...(own.choices && { choices: at(own.choices) }) }
      capabilities.push(await configured(found, encodingOf(of), config))
    }
    return capabilities
  }
  const capabilities = await all(model)
  await using source = await openModel(teacher)
  const parameters = modelParameters(source)
  const name = config.name ?? basename(teacher).replace(/\.gguf$/i, '')
  return {
    ...(text && {
      teacherCapabilities: await all(source),
      student: {
        vocabularySize: model.config.vocabularySize,
        tokenizer: sha256(JSON.stringify(model.tokenizerJson)),
      },
    }),
    ...{ folder: config.out, teacher, tokenizerJson: model.tokenizerJson, capabilities, seed: config.seed },
    contracts: config.capabilities.map(({ name: capability, data, choices, retain }, i) => ({
      ...{ capability, benchmark: basename(choices ?? data), metric: capabilities[i].metric, retainFraction: retain },
    })),
    teachers: [{ name, parameters, category: source.config.family, bestFeature: config.capabilities[0].name }],
    settings: settingsOf(config, source.config.layers, backbone),
    restricted: config.capabilities.filter(({ restricted }) => restricted).map(({ name }) => name),
  }
}

/** @throws SyntaxError when a teacher's ids mean other tokens than the student's. */
async function expectSameVocabulary(teacher: string, student: object, backbone: string): Promise<void> {
  await using model = await openModel(teacher)
  const vocabulary = (json: object) => JSON.stringify((json as { model?: { vocab?: unknown } }).model?.vocab ?? json)
  if (vocabulary(model.tokenizerJson) !== vocabulary(student))
    throw new SyntaxError(
      `Cannot compare ${teacher} with ${backbone} token by token: their vocabularies differ. Give capture.targets text: ` +
        'the teacher writes, and the student learns what it wrote',
    )
}

function settingsOf(config: DistillConfig, teacherLayers: number, backbone: string | undefined): NiwtSettings {
  const { tokens, profile, capture, student, distil, evaluation, controls } = config
  const byName = (of: (own: DistillConfig['capabilities'][number]) => number) =>
    Object.fromEntries(config.capabilities.map((own) => [own.name, of(own)]))
  const { adapterBudget, storage, ffnWidth, layers = teacherLayers } = student
  return {
    ...{ tokens, profile: defined(profile), evaluation },
    capture: { ...defined(capture), rows: byName(({ rows }) => rows) },
    student: { layers, adapterBudget, storage, ...(ffnWidth && { ffnWidth }), ...(backbone && { backbone }) },
    distil: { ...defined(distil), rows: byName(({ stepRows }) => stepRows) },
    ...(controls !== false && { controls: controls === true ? controlNames : controls }),
  }
}

/** Without keys that are undefined: they would tell a lock from its own JSON. */
function defined<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T
}

type Own = DistillConfig['capabilities'][number]

async function configured(own: Own, encoding: ModelEncoding, { tokens }: DistillConfig): Promise<Capability> {
  const { name, data, description, heldOut, mostTokens, mostItems, chance } = own
  const from = await dataCapability({
    ...{ name, data, encoding, length: tokens, heldOut },
    ...(description !== undefined && { description }),
    ...(mostTokens !== undefined && { mostTokens }),
  })
  const items = limited(from.items(), mostItems)
  const row = own.pack ? packedRows(from.train, from.row) : from.row
  const prompts = [...new Set(from.train.map((one) => promptOf(one, encoding)))]
  const written = { prompts, encode: (prompt: string, answer: string) => answered(prompt, answer, encoding, tokens) }
  const plain = { ...from, chance, row, items: () => items, written }
  if (own.choices === undefined) return plain
  const choices = await readChoices(own.choices, encoding, tokens)
  const learned = new Set(from.train.map(({ ids }) => Array.from(ids).join()))
  for (const { rows } of choices)
    for (const { ids } of rows)
      for (const seen of [ids, [...Array.from(ids), encoding.eosId]])
        if (learned.has(Array.from(seen).join()))
          throw new RuleError(
            'what is scored is not learned',
            `${data} holds a question of ${own.choices}: ${encoding.tokenizer.decode(Array.from(ids))}`,
          )
  const scored = limited(choices, mostItems)
  return { ...plain, metric: own.metric, unit: 'item', choices: () => scored, items: () => [] }
}

/** Tokens of a text that a teacher continues. */
const textPrompt = 16

/** What stands before the first token that is learned; of a text that is learned whole, its beginning. */
function promptOf({ ids, weights }: Row, { tokenizer }: ModelEncoding): string {
  const first = Array.from(weights).findIndex((weight) => weight > 0)
  return tokenizer.decode(Array.from(ids).slice(0, first > 0 ? first + 1 : textPrompt))
}

/** A prompt with what a teacher wrote behind it, in the student's tokens. */
function answered(prompt: string, answer: string, { tokenizer, bosId, eosId }: ModelEncoding, tokens: number): Row {
  const begin = [...(bosId === undefined ? [] : [bosId]), ...tokenizer.encode(prompt)]
  const ids = [...begin, ...tokenizer.encode(answer), eosId].slice(0, tokens + 1)
  const weights = Float32Array.from({ length: ids.length - 1 }, (_, i) => (i + 1 >= begin.length ? 1 : 0))
  return padRowsTo([{ ids, weights }], tokens)[0]
}

/** So many of some items, spread by a hash of their places, in the order that they had. */
function limited<T>(items: readonly T[], most: number | undefined): T[] {
  if (most === undefined || items.length <= most) return [...items]
  const order = items.map((_, i) => ({ i, hash: fnv1a(String(i)) }))
  const chosen = new Set(
    order
      .sort((a, b) => a.hash - b.hash || a.i - b.i)
      .slice(0, most)
      .map(({ i }) => i),
  )
  return items.filter((_, i) => chosen.has(i))
}

/** Rows that are filled with records, one behind the other; a record that does not fit begins no row but its own. */
function packedRows(train: readonly Row[], single: Capability['row']): Capability['row'] {
  return (random: Random, tokens: number) => {
    const ids: number[] = []
    const weights: number[] = []
    for (;;) {
      const next = random.pick(train)
      const size = ids.length + next.ids.length
      if (ids.length > 0 && size > tokens + 1) break
      if (next.ids.length > tokens + 1) return single(random, tokens)
      // The first token of a record is not foretold by the one before it.
      if (ids.length > 0) weights.push(0)
      ids.push(...Array.from(next.ids))
      weights.push(...Array.from(next.weights))
    }
    const used = weights.length
    const pad = (values: number[], length: number) => [...values, ...new Array(length - values.length).fill(0)]
    return { ids: pad(ids, tokens + 1), weights: pad(weights, tokens), used }
  }
}
