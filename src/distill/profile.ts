import { join } from 'node:path'
import type { FloatType } from '../core/dtype.ts'
import { InterruptedError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import { writeSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import { exists, writeFileAtomic, writeJson } from '../host/files.ts'
import { mul } from '../kernels/elementwise.ts'
import { crossEntropy, divergence } from '../kernels/losses.ts'
import { mean, rowSum } from '../kernels/reduce.ts'
import { cosine, squaredError } from '../kernels/row-distance.ts'
import { argmax } from '../kernels/select.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import { Decoder } from '../models/decoder.ts'
import { type ModelFolder, readModelFolder } from '../models/folder.ts'
import { addHeadSlopes, normaliseHeadImportance } from '../pca/head-importance.ts'
import { outlierTokens } from '../pca/massive.ts'
import { decompose, type Pca } from '../pca/pca-state.ts'
import { estimateStateRank, type RankReport } from '../pca/rank.ts'
import { StreamingPca } from '../pca/streaming-pca.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Batch, drawBatch, uploadBatch } from '../train/batch.ts'
import type { Capability } from '../train/capability.ts'
import { type NiwtRun, paths } from './run.ts'

/** What the profile of one capability says; the bases are in pca.safetensors beside it. */
export interface Profile {
  readonly capability: string
  readonly samples: number
  /** By activation: estimates of the dimension of what flows there, and the channels that were kept from deciding. */
  readonly ranks: Readonly<Record<string, RankReport>>
  /**
   * By layer: the share of tokens whose norm dwarfs the others, in the first batch, and the positions where most rows have
   * one. The first token is left out of all statistics whether it is among them or not.
   */
  readonly outliers: readonly { readonly share: number; readonly positions: readonly number[] }[]
  /** By layer: 1 − E cos(in, out). */
  readonly layerScores: readonly number[]
  /** By layer: mean KL in nats a token that leaving the layer out costs. */
  readonly ablation: readonly number[]
  /** By layer and head: E|∂L/∂ξ| of a gate ξ on the head, L2-normalised in the layer. */
  readonly headImportance: readonly (readonly number[])[]
  /** Fifty inputs with what the teacher predicts after each character, to verify a later teacher against. */
  readonly rawOutputs: readonly { readonly input: string; readonly predicted: string }[]
}

/** Which layers to leave out first, by true ablation over all capabilities. */
export interface LayerPlan {
  /** Layers in the order in which they are removed, least missed first. */
  readonly removal: readonly number[]
  /** Mean KL in nats a token after each removal. */
  readonly cost: readonly number[]
}

const rawOutputs = 50
const headBatches = 2

/**
 * Stage 2: reads the teacher, held in NF4, on samples of each capability. Activations stay on the GPU; what is written
 * is bases, spectra and scores.
 */
export async function profileStage(run: NiwtRun): Promise<LayerPlan> {
  const where = paths(run.folder, run.teacherName)
  const folder = await readModelFolder(run.teacherFolder)
  using teacher = Decoder.load(run.gpu, folder.config, folder.tensors, 'nf4')
  const probes: Batch[] = []
  for (const capability of run.capabilities) {
    const random = new Random(run.seed + 1)
    const { samples, batch } = run.settings.profile
    const batches = Array.from({ length: Math.ceil(samples / batch) }, () =>
      drawBatch(capability, random, batch, run.settings.tokens),
    )
    probes.push(batches[0])
    const target = where.profile(capability.name)
    if (exists(join(target, 'profile.json'))) continue
    await profileCapability(run, teacher, folder, capability, batches, target)
  }
  const plan = await planRemoval(run, teacher, probes)
  await writeJson(where.layers, plan)
  return plan
}

async function profileCapability(
  run: NiwtRun,
  teacher: Decoder,
  { config, tokenizer }: ModelFolder,
  capability: Capability,
  batches: readonly Batch[],
  target: string,
): Promise<void> {
  const task = `profile ${capability.name}`
  const { gpu } = run
  const collectors = new Map<string, StreamingPca>()
  const scores = new Float64Array(config.layers)
  const raw: { input: string; predicted: string }[] = []
  const outliers: Profile['outliers'][number][] = []
  try {
    for (const [done, batch] of batches.entries()) {
      if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task}`)
      using step = gpu.step({ label: task })
      const { ids } = uploadBatch(step, batch)
      // The first token of a row attends only to itself and has huge activations: it must not decide.
      const counted = Float32Array.from(batch.ids, (_, i) => (i % batch.tokens === 0 ? 0 : 1))
      const weights = step.upload('f32', [batch.rows, batch.tokens], counted)
      let before: Tensor<FloatType> | undefined
      const angles: Tensor<'f32'>[] = []
      const squares: Tensor<'f32'>[] = []
      const logits = teacher.forward(step, ids, {
        observe(name, x) {
          const kind = name.replace(/^\d+\./, '')
          if (kind === 'embedding' || kind === 'output') {
            if (before) angles.push(mean(step, cosine(step, before, x)))
            before = x
          }
          if (kind === 'embedding') return
          if (kind === 'output' && done === 0)
            squares.push(squaredError(step, x, step.filled(x.dtype, x.shape, 0, 'zero')))
          let pca = collectors.get(name)
          if (!pca) {
            pca = new StreamingPca(gpu, x.shape[2])
            collectors.set(name, pca)
          }
          pca.update(step, x, weights, batch.rows * (batch.tokens - 1))
        },
      })
      for (const [layer, angle] of angles.entries())
        scores[layer] += (1 - (await step.readNumber(angle))) / batches.length
      for (const square of squares) {
        const norms = (await step.read(square)).map(Math.sqrt)
        const { rows, positions } = outlierTokens(norms, batch.tokens)
        outliers.push({ share: rows.length / norms.length, positions })
      }
      if (raw.length < rawOutputs) {
        const best = await step.read(argmax(step, logits))
        for (let r = 0; r < batch.rows && raw.length < rawOutputs; r++) {
          const row = (values: Uint32Array) =>
            tokenizer.decode([...values.subarray(r * batch.tokens, (r + 1) * batch.tokens)])
          raw.push({ input: row(batch.ids), predicted: row(best) })
        }
      }
      run.onProgress({ task, done: done + 1, total: batches.length, unit: 'batches' })
    }
    const tensors = new Map<string, CpuTensor>()
    const ranks: Record<string, RankReport> = {}
    for (const [name, collector] of collectors) {
      // Queries are compared as they are, mean included; all else is centred.
      const centred = !name.endsWith('query')
      const state = await collector.state()
      const pca = decompose(state, { centred })
      ranks[name] = estimateStateRank(state, { centred, pca })
      store(tensors, name, pca)
    }
    const profile: Profile = {
      capability: capability.name,
      samples: batches.length * batches[0].rows,
      ranks,
      outliers,
      layerScores: [...scores],
      ablation: await ablate(run, teacher, batches[0], new Set()),
      headImportance: await headImportance(run, teacher, batches.slice(0, headBatches)),
      rawOutputs: raw,
    }
    await writeFileAtomic(join(target, 'pca.safetensors'), writeSafetensors(tensors, { format: 'nexus-pca' }))
    await writeJson(join(target, 'profile.json'), profile)
  } finally {
    for (const collector of collectors.values()) collector[Symbol.dispose]()
  }
}

const keptComponents = 64

/** Basis as f16, mean and spectrum as f32: nothing that grows with the number of tokens. */
function store(tensors: Map<string, CpuTensor>, name: string, { mean, eigenvalues, components }: Pca): void {
  const d = mean.length
  const found = eigenvalues.length
  const kept = Math.min(keptComponents, found)
  const basis = Float64Array.from({ length: kept * d }, (_, i) => components[(i % d) * found + Math.floor(i / d)])
  tensors.set(`${name}.basis`, cpuTensor('F16', [kept, d], basis))
  tensors.set(`${name}.mean`, cpuTensor('F32', [d], mean))
  tensors.set(`${name}.eigenvalues`, cpuTensor('F32', [found], eigenvalues))
}

/** KL in nats a token between the teacher without `skipped` and one that lacks each other layer as well. */
async function ablate(run: NiwtRun, teacher: Decoder, batch: Batch, skipped: ReadonlySet<number>): Promise<number[]> {
  using step = run.gpu.step({ label: 'ablation' })
  const { ids } = uploadBatch(step, batch)
  const full = teacher.forward(step, ids)
  const costs: Tensor<'f32'>[] = []
  for (let layer = 0; layer < teacher.config.layers; layer++) {
    const logits = teacher.forward(step, ids, { skip: new Set([...skipped, layer]) })
    costs.push(mean(step, divergence(step, logits, full)))
  }
  return Promise.all(costs.map((cost) => step.readNumber(cost)))
}

/** Removes as many layers as the student lacks, one by one, each time the one whose loss costs least on average over the capabilities. */
async function planRemoval(run: NiwtRun, teacher: Decoder, probes: readonly Batch[]): Promise<LayerPlan> {
  const { layers } = teacher.config
  const wanted = layers - run.settings.student.layers
  const removed = new Set<number>()
  const cost: number[] = []
  while (removed.size < wanted) {
    const totals = new Float64Array(layers)
    for (const probe of probes)
      for (const [layer, kl] of (await ablate(run, teacher, probe, removed)).entries())
        totals[layer] += kl / probes.length
    const open = [...totals.keys()].filter((layer) => !removed.has(layer))
    const next = open.reduce((best, layer) => (totals[layer] < totals[best] ? layer : best))
    removed.add(next)
    cost.push(totals[next])
    run.onProgress({ task: 'layer importance', done: removed.size, total: wanted, unit: 'layers' })
  }
  return { removal: [...removed], cost }
}

async function headImportance(run: NiwtRun, teacher: Decoder, batches: readonly Batch[]): Promise<number[][]> {
  const { layers, heads, headSize } = teacher.config
  const totals = Array.from({ length: layers }, () => new Float64Array(heads))
  for (const batch of batches) {
    using step = run.gpu.step({ label: 'head importance' })
    const { ids, targets, weights } = uploadBatch(step, batch)
    const mixed: Tensor<FloatType>[] = []
    const logits = teacher.forward(step, ids, {
      observe(name, x) {
        // The weights are frozen: gradients begin at the embedding.
        if (name === 'embedding') x.requiresGrad = true
        if (name.endsWith('attention.mixed')) mixed.push(x)
      },
    })
    const loss = weightedMean(step, crossEntropy(step, logits, targets), weights, batch.total)
    const gradients = step.backward(loss, { retain: mixed })
    for (const [layer, x] of mixed.entries()) {
      // dL/dξ of a head is the sum of x · dx over its part of the features, here for each token.
      const product = step.reshape(mul(step, x, gradients.get(x)), [batch.rows, batch.tokens, heads, headSize])
      addHeadSlopes(totals[layer], await step.read(rowSum(step, product)), batch.tokens)
    }
  }
  return normaliseHeadImportance(totals)
}
