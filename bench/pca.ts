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
import { randomTensors } from '../src/models/random-tensors.ts'
import { decompose } from '../src/pca/pca-state.ts'
import { StreamingPca } from '../src/pca/streaming-pca.ts'
import { forwardFlops, profileDefaults } from '../src/profile/profile.ts'
import { groupPicks } from '../src/profile/samples.ts'
import { planCollection } from '../src/profile/sites.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import { batchOf } from '../src/train/batch.ts'
import { type Ceilings, ratesOf } from './ceilings.ts'

/** Two layers of SmolLM2-135M's sizes: the share of a layer is that of thirty. */
const config: DecoderConfig = {
  ...{ vocabularySize: 64, width: 576, layers: 2, heads: 9, kvHeads: 3, headSize: 64, ffnWidth: 1536 },
  ...{ normEps: 1e-5, ropeTheta: 1e5, contextLength: 2048, tiedHead: true, eosId: 0 },
}
const [rows, tokens] = [profileDefaults.batch, 64]
const { pooled } = profileDefaults

/** What the PCAs of a layer cost. */
export interface PcaShare {
  readonly stride: number
  readonly forwardMs: number
  /** Of the update alone. */
  readonly updateMs: number
  readonly share: number
  /** Tokens of an update, and the batches that they come from. */
  readonly picked: number
  readonly batches: number
  /** Share of the adapter's ceilings that the update reaches. */
  readonly r: number
}

/** Times the forward pass alone and with the PCAs of a profile, by turns. */
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
    plan.stride,
    pooled,
  )
  const weights = new Float32Array(group.rows)
  for (const { indices, at } of group.picks) weights.fill(1, at, at + indices.length)
  const count = weights.reduce((sum, value) => sum + value, 0)
  using stack = new DisposableStack()
  const collectors = new Map<string, StreamingPca>()
  const collectorOf = (name: string, d: number) => {
    let pca = collectors.get(name)
    if (!pca) {
      pca = stack.use(new StreamingPca(gpu, d, { method: plan.methods[name] }))
      collectors.set(name, pca)
    }
    return pca
  }
  const run = async (withPca: boolean) => {
    const cost = { dispatches: 0, flops: 0, bytes: 0 }
    const add = (own: typeof cost) => {
      for (const key of ['dispatches', 'flops', 'bytes'] as const) cost[key] += own[key]
    }
    const began = performance.now()
    using scope = gpu.scope('pools')
    const pools = new Map<string, Tensor<FloatType>>()
    for (const { indices, at } of group.picks) {
      using step = gpu.step()
      const picks = step.upload('u32', [indices.length], indices)
      decoder.hidden(step, step.upload('u32', [rows, tokens], batch.ids), {
        observe(name, x) {
          if (!withPca || !(name in plan.methods)) return
          const d = x.shape[2]
          let pool = pools.get(name)
          if (!pool) {
            pool = scope.empty(x.dtype, [group.rows, d], 'pool')
            pools.set(name, pool)
          }
          takeRows(step, step.reshape(x, [rows * tokens, d]), picks, step.rows(pool, at, at + picks.size))
        },
      })
      add(step.cost)
      await gpu.finish()
    }
    using step = gpu.step()
    const column = step.upload('f32', [group.rows], weights)
    for (const [name, pool] of pools) collectorOf(name, pool.shape[1]).update(step, pool, column, count)
    add(step.cost)
    await gpu.finish()
    return { ms: (performance.now() - began) / group.picks.length, cost }
  }
  await run(true)
  const [alone, both]: [number[], number[]] = [[], []]
  for (let i = 0; i < rounds; i++)
    for (const withPca of i % 2 === 0 ? [false, true] : [true, false])
      (withPca ? both : alone).push((await run(withPca)).ms)
  // The least of each: the update is a small difference of two long times, and what else runs only ever adds to them.
  const [forwardMs, bothMs] = [Math.min(...alone), Math.min(...both)]
  const [plain, full] = [(await run(false)).cost, (await run(true)).cost]
  const cost = {
    dispatches: full.dispatches - plain.dispatches,
    flops: full.flops - plain.flops,
    bytes: full.bytes - plain.bytes,
  }
  const updateMs = Math.max(1e-3, bothMs - forwardMs)
  const share = updateMs / forwardMs
  return {
    stride: plan.stride,
    forwardMs,
    updateMs,
    share,
    r: ratesOf(cost, group.picks.length * updateMs, ceilings).r,
    picked: count,
    batches: group.picks.length,
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
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
    return median(times)
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
  const share = await measureShare(gpu, ceilings, quick ? 3 : 9)
  const peers = await measurePeers(gpu)
  const { stride, picked, batches, forwardMs, updateMs, r } = share
  return (
    `PCA of a profile, layers of SmolLM2-135M in NF4, ${rows}×${tokens} tokens, one of ${stride} taken, ${picked} of ${batches} batches ` +
    `at once: a batch's forward ${forwardMs.toFixed(0)} ms, update ${updateMs.toFixed(0)} ms, ${(100 * share.share).toFixed(1)} % of it, R ${r.toFixed(3)}\n` +
    table(
      [`PCA of ${matrix.rows}×${matrix.columns}`, 'ms'],
      peers.map(({ name, ms }) => [name, typeof ms === 'number' ? ms.toFixed(1) : ms]),
    )
  )
}
