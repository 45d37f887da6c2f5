import { join } from 'node:path'
import type { FloatType } from '../core/dtype.ts'
import { InterruptedError, RuleError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor, toFloat32, toUint32 } from '../formats/tensor.ts'
import { exists, readBytes, readJson, writeFileAtomic, writeJson } from '../host/files.ts'
import { linear } from '../kernels/matmul.ts'
import { topK } from '../kernels/select.ts'
import { softmax } from '../kernels/softmax.ts'
import { Decoder } from '../models/decoder.ts'
import { readModelFolder } from '../models/folder.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { drawBatch, uploadBatch } from '../train/batch.ts'
import { evaluate } from '../train/evaluate.ts'
import type { LayerPlan } from './profile.ts'
import { type NiwtRun, type NiwtSettings, paths } from './run.ts'

/** Projections of a teacher's activations that a student is anchored to. */
export interface AnchorPlan {
  /** Teacher layers that the student keeps, ascending. */
  readonly kept: readonly number[]
  /** For each kept layer, the teacher activation that the student's output of that layer should match. */
  readonly outputs: readonly string[]
  /** The teacher activation whose relations the student's last query should match. */
  readonly query: string
}

/** Which layers a student of `count` layers keeps, and what each of them is anchored to. */
export function planAnchors(plan: LayerPlan, layers: number, count: number): AnchorPlan {
  if (!(count >= 1 && count <= layers)) throw new RangeError(`Cannot keep ${count} of ${layers} layers`)
  const removed = new Set(plan.removal.slice(0, layers - count))
  const kept = Array.from({ length: layers }, (_, layer) => layer).filter((layer) => !removed.has(layer))
  // A kept layer stands for itself and for the removed ones after it, up to the next kept one.
  const outputs = kept.map((_, i) => `${(kept[i + 1] ?? layers) - 1}.output`)
  return { kept, outputs, query: `${kept[kept.length - 1]}.query` }
}

/**
 * Projection matrices (rank, d) of the anchors of a capability, from its profile. Outputs are whitened, so that a
 * squared difference counts every component alike; the query keeps its lengths, and has rows of zeros up to a multiple
 * of four.
 */
export async function anchorBases(
  run: Pick<NiwtRun, 'folder' | 'teacherName'>,
  capability: string,
  anchors: AnchorPlan,
  settings: NiwtSettings['capture'],
): Promise<Map<string, CpuTensor>> {
  const file = join(paths(run.folder, run.teacherName).profile(capability), 'pca.safetensors')
  const { tensors } = parseSafetensors(await readBytes(file))
  const bases = new Map<string, CpuTensor>()
  for (const name of [...anchors.outputs, anchors.query]) {
    const whiten = name !== anchors.query
    const basis = tensors.get(`${name}.basis`)!
    const eigenvalues = toFloat32(tensors.get(`${name}.eigenvalues`)!)
    const d = basis.shape[1]
    const rank = Math.min(whiten ? settings.anchorRank : settings.relationRank, basis.shape[0])
    const floor = (0.02 * eigenvalues.reduce((sum, value) => sum + value, 0)) / d
    // Relations run along fours; rows of zeros change no product.
    const rows = whiten ? rank : Math.ceil(rank / 4) * 4
    const scaled = new Float32Array(rows * d)
    scaled.set(toFloat32(basis).subarray(0, rank * d))
    if (whiten) for (let i = 0; i < scaled.length; i++) scaled[i] /= Math.sqrt(eigenvalues[Math.floor(i / d)] + floor)
    bases.set(name, cpuTensor('F32', [rows, d], scaled))
  }
  return bases
}

/** The teacher's score on the held-out items, unit by unit: what the gate pairs the student with. */
export type Baseline = Readonly<
  Record<string, { readonly correct: string; readonly score: number; readonly bitsPerToken: number }>
>

/**
 * Stage 2b: the teacher's targets on the distillation set, and its score on the held-out items. After it, nothing needs
 * the teacher.
 */
export async function captureStage(run: NiwtRun): Promise<{ bytesPerToken: number; tokens: number }> {
  const where = paths(run.folder, run.teacherName)
  const folder = await readModelFolder(run.teacherFolder)
  using teacher = Decoder.load(run.gpu, folder.config, folder.tensors)
  const plan = (await readJson(where.layers)) as LayerPlan
  const anchors = planAnchors(plan, folder.config.layers, run.settings.student.layers)
  let bytes = 0
  let tokens = 0
  for (const capability of run.capabilities) {
    const path = where.capture(capability.name)
    const rows = run.settings.capture.rows[capability.name]
    tokens += rows * run.settings.tokens
    if (!exists(path)) await captureCapability(run, teacher, capability, anchors, rows, path)
    bytes += (await readBytes(path)).length
  }
  if (!exists(where.baseline)) await writeJson(where.baseline, await scoreTeacher(run, teacher))
  return { bytesPerToken: bytes / tokens, tokens }
}

async function scoreTeacher(run: NiwtRun, teacher: Decoder): Promise<Baseline> {
  const baseline: Record<string, Baseline[string]> = {}
  for (const capability of run.capabilities) {
    const { correct, score, bitsPerToken } = await evaluate({
      gpu: run.gpu,
      forward: (step, ids) => teacher.forward(step, ids),
      items: capability.items(),
      unit: capability.unit,
      task: `score teacher ${capability.name}`,
      onProgress: run.onProgress,
      signal: run.signal,
    })
    baseline[capability.name] = { correct: correct.join(''), score, bitsPerToken }
  }
  return baseline
}

const captureBatch = 40

async function captureCapability(
  run: NiwtRun,
  teacher: Decoder,
  { name, row }: { name: string; row: NiwtRun['capabilities'][number]['row'] },
  anchors: AnchorPlan,
  rows: number,
  path: string,
): Promise<void> {
  const { tokens, capture } = run.settings
  const task = `capture ${name}`
  const random = new Random(run.seed + 2)
  const bases = await anchorBases(run, name, anchors, capture)
  const small = teacher.config.vocabularySize <= 256
  const columns = new Map<string, { dtype: 'U8' | 'U16' | 'F16' | 'F32'; width: number; values: number[][] }>()
  const collect = (key: string, dtype: 'U8' | 'U16' | 'F16', width: number, values: ArrayLike<number>) => {
    const column = columns.get(key) ?? { dtype, width, values: [] }
    columns.set(key, column)
    column.values.push(Array.from(values))
  }
  for (let begin = 0; begin < rows; begin += captureBatch) {
    if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task}`)
    const batch = drawBatch({ name, row }, random, Math.min(captureBatch, rows - begin), tokens)
    using step = run.gpu.step({ label: task })
    const { ids } = uploadBatch(step, batch)
    const seen = new Map<string, Tensor<FloatType>>()
    const observe = (key: string, x: Tensor<FloatType>) => {
      const basis = bases.get(key)
      if (basis) seen.set(key, linear(step, x, step.upload('f32', basis.shape, toFloat32(basis))))
    }
    const logits = teacher.forward(step, ids, { observe })
    const { indices, values } = topK(step, softmax(step, logits), capture.topK)
    const index = small ? 'U8' : 'U16'
    collect('ids', index, 1, batch.ids)
    collect('targets', index, 1, batch.targets)
    collect('weights', 'F16', 1, batch.weights)
    collect('top.ids', index, capture.topK, await step.read(indices))
    collect('top.probabilities', 'F16', capture.topK, await step.read(values))
    for (const [key, projected] of seen) collect(`anchor.${key}`, 'F16', projected.shape[2], await step.read(projected))
    run.onProgress({ task, done: begin + batch.rows, total: rows, unit: 'rows' })
  }
  const tensors = new Map<string, CpuTensor>()
  for (const [key, { dtype, width, values }] of columns) {
    refuseRaw(key, width, teacher.config.width)
    tensors.set(key, cpuTensor(dtype, width === 1 ? [rows, tokens] : [rows, tokens, width], values.flat()))
  }
  await writeFileAtomic(path, writeSafetensors(tensors, { format: 'nexus-capture', capability: name }))
}

/** The rule that nothing raw is stored, where it could happen. @throws RuleError */
export function refuseRaw(name: string, width: number, modelWidth: number): void {
  if (width * 2 > modelWidth)
    throw new RuleError(
      'nothing raw is stored',
      `${name} would store ${width} values a token of a model ${modelWidth} wide; keep at most half as many components`,
    )
}

/** A capture in memory, as numbers. */
export interface Capture {
  readonly rows: number
  readonly tokens: number
  readonly columns: ReadonlyMap<string, { readonly width: number; readonly values: Float32Array | Uint32Array }>
}

/**
 * Reads what {@link captureStage} wrote for a capability.
 * @throws SyntaxError naming the file when it is damaged.
 */
export async function readCapture(path: string): Promise<Capture> {
  let tensors: ReadonlyMap<string, CpuTensor>
  try {
    tensors = parseSafetensors(await readBytes(path)).tensors
  } catch (error) {
    throw new SyntaxError(`The capture ${path} is damaged (${(error as Error).message}). Delete it and run again.`)
  }
  const [rows, tokens] = tensors.get('ids')?.shape ?? []
  if (!rows || !tokens) throw new SyntaxError(`The capture ${path} holds no ids. Delete it and run again.`)
  const columns = new Map<string, { width: number; values: Float32Array | Uint32Array }>()
  for (const [name, tensor] of tensors) {
    const values = tensor.dtype.startsWith('U') ? toUint32(tensor) : toFloat32(tensor)
    columns.set(name, { width: tensor.shape[2] ?? 1, values })
  }
  return { rows, tokens, columns }
}
