import { InterruptedError, RuleError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { checkDiskSpace, exists, readJson, sha256, writeJson } from '../host/files.ts'
import { headSamples, headTopK } from '../kernels/head-select.ts'
import { linear } from '../kernels/matmul.ts'
import { Decoder } from '../models/decoder.ts'
import { openModel } from '../models/open-model.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Batch, drawBatch, uploadBatch } from '../train/batch.ts'
import type { Capability } from '../train/capability.ts'
import { type AnchorPlan, anchorBases, planAnchors, queryWidth, refuseRaw } from './anchors.ts'
import {
  bytesPerToken,
  Capture,
  type CaptureColumn,
  type CaptureLayout,
  isWhole,
  writeCapture,
} from './capture-store.ts'
import { type Measured, measure } from './measure.ts'
import type { LayerPlan } from './profile.ts'
import { type NiwtRun, type NiwtSettings, paths } from './run.ts'
import { uploadBases } from './term-inputs.ts'
import { writeTexts, writtenCapability } from './written.ts'

/** Most bytes that a capture may take for a token, all included. */
export const mostBytesPerToken = 300

/** Rows that the teacher is run on at once. */
const usualBatch = 40
const usualShardBytes = 8 * 2 ** 20

/** The teacher's score on the held-out items, unit by unit: what the gate pairs the student with. */
export type Baseline = Readonly<Record<string, Measured>>

/** What stage 2b reports. */
export interface CaptureResult {
  readonly bytesPerToken: number
  readonly tokens: number
  readonly bytes: number
}

/**
 * What a row of a capture holds.
 * @param anchors what the teacher's activations are projected for; none where the targets are not the teacher's.
 * @throws RuleError when it is more than {@link mostBytesPerToken} a token, or raw.
 */
export function captureColumns(
  model: { readonly vocabularySize: number; readonly width: number },
  tokens: number,
  settings: NiwtSettings['capture'],
  anchors: AnchorPlan | undefined,
): CaptureColumn[] {
  const id = model.vocabularySize <= 2 ** 8 ? 'U8' : model.vocabularySize <= 2 ** 16 ? 'U16' : 'U32'
  const columns: CaptureColumn[] = [
    { name: 'ids', dtype: id, shape: [tokens + 1] },
    { name: 'weights', dtype: 'F16', shape: [tokens] },
  ]
  const { targets = 'top-k' } = settings
  if (targets === 'top-k' || targets === 'sampled') {
    const width = targets === 'top-k' ? settings.topK : (settings.draws ?? usualDraws)
    columns.push({ name: 'top.ids', dtype: id, shape: [tokens, width] })
    columns.push({ name: 'top.probabilities', dtype: 'F16', shape: [tokens, width] })
    const anchor = (name: string, width: number) => {
      refuseRaw(name, width, model.width)
      columns.push({ name: `anchor.${name}`, dtype: 'F16', shape: [tokens, width] })
    }
    for (const { teacher } of anchors?.outputs ?? []) anchor(teacher, settings.anchorRank)
    if (anchors) anchor(anchors.query, queryWidth(settings))
  }
  const bytes = bytesPerToken(tokens, columns)
  if (bytes > mostBytesPerToken)
    throw new RuleError(
      'at most 300 bytes a token',
      `the capture would take ${bytes.toFixed(0)} (${columns.map(({ name, dtype, shape }) => `${name} ${dtype} ${shape.slice(1).join()}`).join(', ')}). ` +
        'Anchor fewer layers (capture.anchorLayers), keep fewer components (capture.anchorRank) or likeliest tokens (capture.topK)',
    )
  return columns
}

/** Tokens drawn of the teacher's distribution where it is sampled. */
export const usualDraws = 12

/**
 * Stage 2b: the teacher's targets on the distillation set, and its score on the held-out items. After it, nothing needs
 * the teacher. Shards that are there and whole stay; what is missing, damaged or new is made.
 * @throws RuleError when a token would take more than 300 bytes; ResourceError when the disk is too small.
 */
export async function captureStage(run: NiwtRun): Promise<CaptureResult> {
  const where = paths(run.folder, run.teacherName)
  await using files = await openModel(run.teacherFolder)
  const { config, tokenizerJson } = files
  const { capture } = run.settings
  const plan = (await readJson(where.layers)) as LayerPlan
  const { layers, backbone } = run.settings.student
  // A backbone of its own has no layers in common with the teacher.
  const anchors = backbone ? undefined : planAnchors(plan, config.layers, layers, capture.anchorLayers)
  const columns = captureColumns({ ...config, ...run.student }, run.settings.tokens, capture, anchors)
  const each = bytesPerToken(run.settings.tokens, columns)
  const wanted = run.capabilities.reduce((sum, { name }) => sum + capture.rows[name], 0) * run.settings.tokens
  await checkDiskSpace(run.folder, Math.ceil(1.05 * each * wanted))

  using teacher = await Decoder.open(run.gpu, files.weights, { storage: capture.storage ?? 'f32' })
  const tokenizer = run.student?.tokenizer ?? sha256(JSON.stringify(tokenizerJson))
  let [bytes, tokens] = [0, 0]
  for (const capability of run.capabilities) {
    const { rows: _, shardBytes: __, batch: ___, ...decisive } = capture
    const written = capture.targets === 'text' ? await writeTexts(run, files, teacher, capability) : undefined
    const settings = sha256(JSON.stringify([run.seed, decisive, anchors, config, written?.hash]))
    const layout: CaptureLayout = {
      ...{ capability: capability.name, tokens: run.settings.tokens, columns, settings, tokenizer },
    }
    const source = written ? writtenCapability(capability, written.texts) : capability
    await captureCapability(run, teacher, source, anchors, layout)
    await using kept = await Capture.open(where.capture(capability.name))
    bytes += kept.bytes
    tokens += kept.rows * run.settings.tokens
  }
  // Each score is on disk as it is there: on a slow machine they take long.
  const baseline: Record<string, Measured> = exists(where.baseline)
    ? { ...((await readJson(where.baseline)) as Baseline) }
    : {}
  for (const capability of run.teacherCapabilities ?? run.capabilities)
    if (!baseline[capability.name]) {
      baseline[capability.name] = await measure(run, teacher, capability, `score teacher ${capability.name}`)
      await writeJson(where.baseline, baseline)
    }
  return { bytesPerToken: bytes / tokens, tokens, bytes }
}

/** Whether all that stage 2b writes is there and whole. */
export async function capturesAreWhole(run: NiwtRun): Promise<boolean> {
  const where = paths(run.folder, run.teacherName)
  for (const { name } of run.capabilities)
    if (!(await isWhole(where.capture(name), run.settings.capture.rows[name]))) return false
  if (!exists(where.baseline)) return false
  const baseline = (await readJson(where.baseline)) as Baseline
  return run.capabilities.every(({ name }) => name in baseline)
}

async function captureCapability(
  run: NiwtRun,
  teacher: Decoder,
  capability: Pick<Capability, 'name' | 'row'>,
  anchors: AnchorPlan | undefined,
  layout: CaptureLayout,
): Promise<void> {
  const { tokens, capture } = run.settings
  const { batch: size = usualBatch, shardBytes = usualShardBytes } = capture
  const task = `capture ${capability.name}`
  const bases = anchors ? await anchorBases(run, capability.name, anchors, capture) : new Map<string, CpuTensor>()
  const total = capture.rows[capability.name]
  let done = 0
  await writeCapture({
    ...{ folder: paths(run.folder, run.teacherName).capture(capability.name), layout, rows: total, shardBytes },
    async make(shard, rows) {
      const random = new Random(run.seed * 1_000_003 + 2 + shard)
      const values = new Map(layout.columns.map(({ name }) => [name, [] as ArrayLike<number>[]]))
      for (let begin = 0; begin < rows; begin += size) {
        if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task}`)
        const batch = drawBatch(capability, random, Math.min(size, rows - begin), tokens)
        const seed = (shard * 4096 + begin) % 2 ** 16
        for (const [name, part] of await lookAt(run, teacher, batch, bases, layout, seed)) values.get(name)!.push(part)
        done = Math.min(total, done + batch.rows)
        run.onProgress({ task, done, total, unit: 'rows', figures: { shard: String(shard) } })
      }
      return new Map([...values].map(([name, parts]) => [name, joined(parts)]))
    },
  })
}

/** What the teacher gives for a batch, by column. */
export async function lookAt(
  run: Pick<NiwtRun, 'gpu' | 'settings'>,
  teacher: Decoder,
  batch: Batch,
  bases: ReadonlyMap<string, CpuTensor>,
  layout: CaptureLayout,
  seed: number,
): Promise<Map<string, ArrayLike<number>>> {
  const ids = new Uint32Array(batch.rows * (batch.tokens + 1))
  for (let r = 0; r < batch.rows; r++) {
    ids.set(batch.ids.subarray(r * batch.tokens, (r + 1) * batch.tokens), r * (batch.tokens + 1))
    ids[(r + 1) * (batch.tokens + 1) - 1] = batch.targets[(r + 1) * batch.tokens - 1]
  }
  const found = new Map<string, ArrayLike<number>>([
    ['ids', ids],
    ['weights', batch.weights],
  ])
  const top = layout.columns.find(({ name }) => name === 'top.ids')
  if (!top) return found
  using step = run.gpu.step({ label: 'capture' })
  const { seen, hidden } = step.withoutGradients(() =>
    observed(step, teacher, uploadBatch(step, batch).ids, uploadBases(step, bases)),
  )
  const [, width] = top.shape
  const normed = teacher.normed(step, hidden)
  if (run.settings.capture.targets === 'sampled') {
    const draws = headSamples(step, normed, teacher.headWeight, { draws: width, seed })
    const drawn = await Promise.all(draws.map((draw) => step.read(draw)))
    for (const [name, values] of countDraws(drawn)) found.set(name, values)
  } else {
    const kept = headTopK(step, normed, teacher.headWeight, width)
    found.set('top.ids', await step.read(kept.ids))
    found.set('top.probabilities', await step.read(kept.probabilities))
  }
  for (const [name, projected] of seen) found.set(`anchor.${name}`, (await step.read(projected)).map(withinHalf))
  return found
}

/** A forward pass whose activations are projected as they come. @returns projections by activation, and the last state. */
export function observed(
  step: Step,
  model: Decoder,
  ids: Tensor<'u32'>,
  bases: ReadonlyMap<string, Tensor<'f32'>>,
): { seen: Map<string, Tensor<'f32'>>; hidden: ReturnType<Decoder['hidden']> } {
  const seen = new Map<string, Tensor<'f32'>>()
  const hidden = model.hidden(step, ids, {
    observe(name, x) {
      const basis = bases.get(name)
      if (basis) seen.set(name, linear(step, x as Tensor<'f32'>, basis))
    },
  })
  return { seen, hidden }
}

/** A huge activation may project to more than f16 holds. */
function withinHalf(value: number): number {
  return Math.max(-65504, Math.min(65504, value))
}

/** Draws of each row as distinct ids with their shares; what is left over is ids of no share, distinct as well. */
function countDraws(drawn: readonly Uint32Array[]): Map<string, ArrayLike<number>> {
  const width = drawn.length
  const rows = drawn[0].length
  const ids = new Uint32Array(rows * width)
  const shares = new Float32Array(rows * width)
  for (let r = 0; r < rows; r++) {
    const counts = new Map<number, number>()
    for (const draw of drawn) counts.set(draw[r], (counts.get(draw[r]) ?? 0) + 1)
    let at = r * width
    for (const [id, count] of counts) {
      ids[at] = id
      shares[at++] = count / width
    }
    for (let id = 0; at < (r + 1) * width; id++) if (!counts.has(id)) ids[at++] = id
  }
  return new Map<string, ArrayLike<number>>([
    ['top.ids', ids],
    ['top.probabilities', shares],
  ])
}

function joined(parts: readonly ArrayLike<number>[]): Float64Array {
  const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
