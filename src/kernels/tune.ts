import type { FloatType } from '../core/dtype.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import { Random } from '../core/random.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import { matmul } from './matmul.ts'
import { type ProductTier, productTiers, productWork, usualTier } from './product.ts'

/** What was found for one kind of work. */
export interface TunedWork {
  readonly work: string
  readonly chosen: ProductTier
  /** Least ms of each tier that gave the right result; the others are missing. */
  readonly ms: Readonly<Partial<Record<ProductTier, number>>>
}

/** How to tune. */
export interface TuneOptions {
  /** Told after each kind of work. */
  readonly onProgress?: OnProgress
  /** Sizes of the square products that are timed, in ascending order; they follow from the adapter unless told. */
  readonly sizes?: readonly number[]
}

const layouts = [
  { transposeA: false, transposeB: false },
  { transposeA: false, transposeB: true },
  { transposeA: true, transposeB: false },
]
/** A tier replaces the usual one only when it is this much faster: below, the difference is noise. */
const margin = 1.08
const rounds = 5

/**
 * Times every kernel for products on this adapter and makes `gpu.tuning` choose the fastest that is right.
 */
export async function tuneProducts(
  gpu: Gpu,
  { onProgress = silent, sizes = gpu.software ? [128, 384] : [256, 2048] }: TuneOptions = {},
): Promise<TunedWork[]> {
  const dtypes: FloatType[] = gpu.capabilities.f16 ? ['f32', 'f16'] : ['f32']
  const kinds = dtypes.flatMap((dtype) => layouts.flatMap((layout) => sizes.map((size) => ({ dtype, layout, size }))))
  const found: TunedWork[] = []
  for (const { dtype, layout, size } of kinds) {
    using scope = gpu.scope('tune')
    found.push(await tuneWork(gpu, scope, dtype, layout, size))
    onProgress({ task: 'tune', done: found.length, total: kinds.length, unit: 'kernels' })
  }
  return found
}

async function tuneWork(
  gpu: Gpu,
  scope: Scope,
  dtype: FloatType,
  layout: (typeof layouts)[number],
  size: number,
): Promise<TunedWork> {
  const work = productWork(dtype, layout.transposeA, layout.transposeB, size, size)
  const random = new Random(9)
  const [a, b] = [0, 1].map(() => scope.upload(dtype, [size, size], random.normals(size * size)))
  const usual = usualTier(gpu, size, size)
  const best = new Map<ProductTier, number>()
  const run = async (tier: ProductTier) => {
    gpu.tuning.choose(work, tier)
    using step = gpu.step()
    const started = performance.now()
    const y = matmul(step, a, b, layout)
    await gpu.finish()
    return { ms: performance.now() - started, y: await step.read(y) }
  }
  try {
    const want = (await run(usual)).y
    const tolerance = (dtype === 'f32' ? 1e-5 : 2e-3) * Math.sqrt(size) * 4
    for (const tier of productTiers(gpu, dtype)) {
      const { y } = await run(tier)
      if (y.every((value, i) => Math.abs(value - want[i]) <= tolerance)) best.set(tier, Number.POSITIVE_INFINITY)
    }
    // Tiers take turns, so that a slow moment of the machine meets all of them.
    for (let round = 0; round < rounds; round++)
      for (const tier of best.keys()) best.set(tier, Math.min(best.get(tier)!, (await run(tier)).ms))
  } finally {
    gpu.tuning.choose(work, undefined)
  }
  const [fastest] = [...best.keys()].sort((x, y) => best.get(x)! - best.get(y)!)
  const chosen = best.get(fastest)! * margin < best.get(usual)! ? fastest : usual
  if (chosen !== usual) gpu.tuning.choose(work, chosen)
  return { work, chosen, ms: Object.fromEntries(best) }
}
