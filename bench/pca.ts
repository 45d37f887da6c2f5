// What collecting PCAs costs beside the forward pass that it watches, and how the PCA of one matrix compares with others.
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { table } from '../src/cli/output.ts'
import type { FloatType } from '../src/core/dtype.ts'
import { Random } from '../src/core/random.ts'
import type { DecoderConfig } from '../src/formats/model-config.ts'
import { takeRows } from '../src/kernels/embedding.ts'
import { Decoder } from '../src/models/decoder.ts'
import type { Observe } from '../src/models/decoder-layer.ts'
import { randomTensors } from '../src/models/random-tensors.ts'
import { decompose } from '../src/pca/pca-state.ts'
import { StreamingPca } from '../src/pca/streaming-pca.ts'
import { forwardFlops, profileDefaults } from '../src/profile/profile.ts'
import { groupPicks } from '../src/profile/samples.ts'
import { planCollection } from '../src/profile/sites.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import { batchOf } from '../src/train/batch.ts'
import { type Ceilings, costOf, ratesOf } from './ceilings.ts'
import { timingOf } from './timing.ts'

/** Two layers of SmolLM2-135M's sizes: the share of a layer is that of thirty. */
const config: DecoderConfig = {
  ...{ vocabularySize: 64, width: 576, layers: 2, heads: 9, kvHeads: 3, headSize: 64, ffnWidth: 1536 },
  ...{ normEps: 1e-5, ropeTheta: 1e5, contextLength: 2048, tiedHead: true, eosId: 0 },
}
const [rows, tokens] = [profileDefaults.batch, 64]
const { pooled } = profileDefaults

/** What the PCAs of a profile cost beside the forward pass, all times for one batch. */
export interface PcaShare {
  readonly stride: number
  readonly forwardMs: number
  /** Of taking the rows that wait out of the activations. */
  readonly gatherMs: number
  /** Of taking in the rows that waited, its share of one batch. */
  readonly updateMs: number
  /** Of gathering and update together in the forward pass. */
  readonly share: number
  /** Tokens of an update, and the batches that they come from. */
  readonly picked: number
  readonly batches: number
  /** Share of the adapter's ceilings that gathering and update reach. */
  readonly r: number
}

/**
 * Times the forward pass, the gathering and the update each by itself, by turns: what they cost within one pass is the
 * difference of two long times, which noise hides. Each has its own submission here, which in a profile they share.
 */
export async function measureShare(gpu: Gpu, ceilings: Ceilings, rounds: number): Promise<PcaShare> {
  using decoder = Decoder.load(gpu, config, randomTensors(config, new Random(1)), 'nf4')
  const random = new Random(2)
  const batch = batchOf(
    Array.from({ length: rows }, () => ({
      ids: Array.from({ length: tokens + 1 }, () => random.integer(config.vocabularySize)),
      weights: new Float32Array(tokens).fill(1),
    })),
  )
  const plan = planCollection(config, {
    ...{ ...profileDefaults, forwardFlops: forwardFlops(decoder, batch) },
  })
  // As many batches as one update waits for.
  const [group] = groupPicks(
    Array.from({ length: pooled }, () => batch),
    plan,
    pooled,
  )
  const weights = new Float32Array(group.rows)
  for (const { indices, at } of group.picks) weights.fill(1, at, at + indices.length)
  const count = weights.reduce((sum, value) => sum + value, 0)

  using stack = new DisposableStack()
  const scope = stack.use(gpu.scope('sites'))
  const sites: { seen: Tensor<FloatType>; pool: Tensor<FloatType>; pca: StreamingPca }[] = []
  const forward = (step: Step, observe?: Observe) => {
    decoder.hidden(step, step.upload('u32', [rows, tokens], batch.ids), { observe })
  }
  const gather = (step: Step) => {
    for (const { indices, at } of group.picks) {
      const picks = step.upload('u32', [indices.length], indices)
      for (const { seen, pool } of sites) takeRows(step, seen, picks, step.rows(pool, at, at + picks.size))
    }
  }
  const update = (step: Step) => {
    const column = step.upload('f32', [group.rows], weights)
    for (const { pool, pca } of sites) pca.update(step, pool, column, count)
  }
  const timed = async (work: (step: Step) => void) => {
    const began = performance.now()
    using step = gpu.step()
    work(step)
    await gpu.finish()
    return performance.now() - began
  }
  // The activations of one pass are kept, for every part to begin with what it meets in a profile.
  await timed((step) => {
    const all = step.upload(
      'u32',
      [rows * tokens],
      Uint32Array.from({ length: rows * tokens }, (_, i) => i),
    )
    forward(step, (name, x) => {
      if (!(name in plan.methods)) return
      const d = x.shape[2]
      const seen = scope.empty(x.dtype, [rows * tokens, d], 'seen')
      takeRows(step, step.reshape(x, [rows * tokens, d]), all, seen)
      const pca = stack.use(new StreamingPca(gpu, d, { method: plan.methods[name] }))
      sites.push({ seen, pool: scope.empty(x.dtype, [group.rows, d], 'pool'), pca })
    })
  })
  const parts = { forward, gather, update }
  const times: Record<keyof typeof parts, number[]> = { forward: [], gather: [], update: [] }
  for (let i = 0; i <= rounds; i++)
    for (const name of ['forward', 'gather', 'update'] as const) {
      const ms = await timed(parts[name])
      // The first round compiles.
      if (i > 0) times[name].push(ms)
    }
  const cost = costOf(gpu, (step) => {
    gather(step)
    update(step)
  })
  const batches = group.picks.length
  const forwardMs = timingOf(times.forward).median
  const [gatherMs, updateMs] = [times.gather, times.update].map((all) => timingOf(all).median / batches)
  return {
    ...{ stride: plan.stride, picked: count, batches },
    ...{ forwardMs, gatherMs, updateMs, share: (gatherMs + updateMs) / forwardMs },
    r: ratesOf(cost, batches * (gatherMs + updateMs), ceilings).r,
  }
}

/** One matrix for everyone. */
const matrix = { rows: 2048, columns: 256, components: 32 }

/** Ms of the PCA of one matrix, or why there is none. */
export interface PcaTime {
  readonly name: string
  readonly ms: number | string
}

/** Our PCA of one matrix beside ml-pca (npm, plain JavaScript) and scikit-learn (Python, LAPACK), both on the processor. */
export async function measurePeers(gpu: Gpu): Promise<PcaTime[]> {
  const { rows: n, columns: d } = matrix
  const values = new Random(3).normals(n * d)
  for (let i = 0; i < values.length; i++) values[i] /= 1 + (i % d)
  using step = gpu.step()
  const x = step.upload('f32', [n, d], values)
  const ones = step.filled('f32', [n], 1)
  const timed = async (work: () => Promise<unknown> | unknown) => {
    await work()
    const times: number[] = []
    for (let i = 0; i < 3; i++) {
      const began = performance.now()
      await work()
      times.push(performance.now() - began)
    }
    return timingOf(times).median
  }
  const update = await timed(async () => {
    using pca = new StreamingPca(gpu, d)
    using inner = gpu.step()
    pca.update(inner, x, ones, n)
    await gpu.finish()
  })
  using pca = new StreamingPca(gpu, d)
  pca.update(step, x, ones, n)
  const state = await pca.state()
  const finish = await timed(() => decompose(state, { components: matrix.components }))
  return [
    { name: 'ours, update on the GPU', ms: update },
    { name: `ours, all eigenvalues and ${matrix.components} components on the processor`, ms: finish },
    { name: 'ml-pca, of the covariance matrix', ms: mlPca(values) },
    ...scikitLearn(),
  ]
}

function mlPca(values: Float32Array): number | string {
  const peers = join(import.meta.dirname, 'peers/package.json')
  if (!existsSync(join(peers, '../node_modules/ml-pca'))) return 'not installed: npm ci --prefix bench/peers'
  const { PCA } = createRequire(peers)('ml-pca') as { PCA: new (data: number[][], options: object) => object }
  const { rows: n, columns: d } = matrix
  const data = Array.from({ length: n }, (_, r) => Array.from(values.subarray(r * d, (r + 1) * d)))
  const began = performance.now()
  new PCA(data, { method: 'covarianceMatrix' })
  return performance.now() - began
}

/** Python times itself; the interpreter is the one that NEXUS_PYTHON names. */
function scikitLearn(): PcaTime[] {
  const python = process.env.NEXUS_PYTHON
  const names = ['scikit-learn, PCA', 'scikit-learn, IncrementalPCA']
  if (!python) return names.map((name) => ({ name, ms: 'name a Python that has it: NEXUS_PYTHON' }))
  const { rows: n, columns: d, components: k } = matrix
  const script = `
import json, time, numpy, sklearn.decomposition as s
x = numpy.random.default_rng(3).normal(size=(${n}, ${d})) / (1 + numpy.arange(${d}))
def best(f):
    f(); t = []
    for _ in range(3):
        a = time.perf_counter(); f(); t.append(time.perf_counter() - a)
    return 1000 * sorted(t)[1]
print(json.dumps([best(lambda: s.PCA(${k}).fit(x)), best(lambda: s.IncrementalPCA(${k}, batch_size=512).fit(x))]))`
  try {
    const found = JSON.parse(execFileSync(python, ['-c', script], { encoding: 'utf8' })) as number[]
    return names.map((name, i) => ({ name, ms: found[i] }))
  } catch (error) {
    return names.map((name) => ({ name, ms: `failed: ${(error as Error).message.split('\n')[0]}` }))
  }
}

/** Both measurements, as text. */
export async function pcaTables(gpu: Gpu, ceilings: Ceilings, quick: boolean): Promise<string> {
  const share = await measureShare(gpu, ceilings, quick ? 3 : 25)
  const peers = await measurePeers(gpu)
  const { stride, picked, batches, forwardMs, gatherMs, updateMs, r } = share
  return (
    `PCA of a profile, layers of SmolLM2-135M in NF4, ${rows}×${tokens} tokens, one of ${stride} taken, ${picked} of ${batches} batches ` +
    `at once: a batch's forward ${forwardMs.toFixed(0)} ms, gathering ${gatherMs.toFixed(1)} and update ${updateMs.toFixed(1)} ms, ` +
    `${(100 * share.share).toFixed(1)} % of it, R ${r.toFixed(3)}\n` +
    table(
      [`PCA of ${matrix.rows}×${matrix.columns}`, 'ms'],
      peers.map(({ name, ms }) => [name, typeof ms === 'number' ? ms.toFixed(1) : ms]),
    )
  )
}
