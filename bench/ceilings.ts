import { add } from '../src/kernels/add.ts'
import { ceilings as wgsl } from '../src/kernels/wgsl.gen.ts'
import { grid } from '../src/runtime/entry.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step, StepCost } from '../src/runtime/step.ts'
import { deviceTime } from './device-time.ts'
import type { Stopwatch } from './stopwatch.ts'
import { type Timing, timingOf } from './timing.ts'

/** Highest rates of an adapter, measured in the same run as what is divided by them. */
export interface Ceilings {
  readonly copyGBs: number
  readonly f32GFLOPs: number
  readonly f16GFLOPs: number | null
  /** One of a thousand tiny dispatches, each of which reads what the one before wrote. */
  readonly dispatchMicroseconds: number
  /** What recording one op costs the host: shapes, memory, bind group, parameters. Nothing is waited for. */
  readonly recordMicroseconds: number
  /** What replaying one recorded op costs the host, the submit included. */
  readonly replayMicroseconds: number
}

/** Median ms of work, on a GPU by its own clock where it has one: a submit takes longer than a fast GPU's work. */
async function msOf(gpu: Gpu, time: Stopwatch, work: (step: Step) => void): Promise<number> {
  if (gpu.software || !gpu.capabilities.timestamps) return (await time(work)).median
  return (await deviceTime(gpu, work)).median
}

/** Copy bandwidth, multiply-add rates, and the cost of a dispatch and of recording an op. */
export async function measureCeilings(gpu: Gpu, time: Stopwatch): Promise<Ceilings> {
  using scope = gpu.scope('ceilings')
  // Two buffers that no cache holds: 32 MiB each for a processor, 256 MiB for a GPU where a binding may be as large.
  const mostBytes = gpu.software ? 2 ** 25 : Math.min(2 ** 28, gpu.pool.largest)
  const size = 256 * Math.floor(mostBytes / 1024)
  const x = scope.filled('f32', [size], 1)
  const y = scope.empty('f32', [size])
  const copyMs = await msOf(gpu, time, (step) =>
    step.run(wgsl.copy, { x, y }, { size: size / 4, rounds: 0 }, { workgroups: grid(size / 256), flops: 0 }),
  )
  // A GPU wants a hundred thousand invocations in flight.
  const invocations = gpu.software ? 1 << 14 : 1 << 20
  const rounds = 256
  const flops = invocations * rounds * 8 * 4 * 2 // eight chains of vec4, a product and a sum
  const rate = async (dtype: 'f32' | 'f16') => {
    const sums = scope.empty(dtype, [invocations])
    const ms = await msOf(gpu, time, (step) =>
      step.run(wgsl.multiplyAdd, { sums }, { size: 0, rounds }, { workgroups: grid(invocations / 64), flops }),
    )
    return flops / ms / 1e6
  }
  let [from, to] = [scope.filled('f32', [64], 1), scope.empty('f32', [64])]
  const chain = await time((step) => {
    step.run(wgsl.copy, { x: from, y: to }, { size: 1, rounds: 0 }, { workgroups: [1], flops: 0 })
    ;[from, to] = [to, from]
  }, 1000)
  return {
    copyGBs: (2 * 4 * size) / copyMs / 1e6,
    f32GFLOPs: await rate('f32'),
    f16GFLOPs: gpu.capabilities.f16 ? await rate('f16') : null,
    dispatchMicroseconds: chain.median * 1000,
    recordMicroseconds: (await timeRecording(gpu)).median * 1000,
    replayMicroseconds: (await timeReplay(gpu)).median * 1000,
  }
}

const recorded = 100

/** The host's time for one op, without the submit. */
async function timeRecording(gpu: Gpu): Promise<Timing> {
  using scope = gpu.scope('recording')
  const [x, z] = [scope.filled('f32', [64], 1), scope.filled('f32', [64], 1)]
  const times: number[] = []
  for (let sample = 0; sample < 25; sample++) {
    {
      using step = gpu.step()
      const began = performance.now()
      for (let i = 0; i < recorded; i++) add(step, x, z)
      if (sample >= 5) times.push((performance.now() - began) / recorded)
    }
    await gpu.finish()
  }
  return timingOf(times)
}

/** The host's time for one replayed op. */
async function timeReplay(gpu: Gpu): Promise<Timing> {
  using scope = gpu.scope('replay')
  const [x, z] = [scope.filled('f32', [64], 1), scope.filled('f32', [64], 1)]
  using recording = gpu.record((step) => {
    for (let i = 0; i < recorded; i++) add(step, x, z)
  })
  const times: number[] = []
  for (let sample = 0; sample < 25; sample++) {
    const began = performance.now()
    recording.replay()
    if (sample >= 5) times.push((performance.now() - began) / recorded)
    await gpu.finish()
  }
  return timingOf(times)
}

/** What a time amounts to. */
export interface Rates {
  readonly gflops: number
  readonly gbs: number
  /** Share of the ceiling, t_roof / t. */
  readonly r: number
  /** Which ceiling is the nearer one. */
  readonly bound: 'compute' | 'memory'
}

/** Rates of work that costs `cost` and took `ms`. */
export function ratesOf({ flops, bytes }: Pick<StepCost, 'flops' | 'bytes'>, ms: number, most: Ceilings): Rates {
  const [compute, memory] = [flops / most.f32GFLOPs / 1e6, bytes / most.copyGBs / 1e6]
  return {
    gflops: flops / ms / 1e6,
    gbs: bytes / ms / 1e6,
    r: Math.max(compute, memory) / ms,
    bound: compute > memory ? 'compute' : 'memory',
  }
}

/** What recording `work` costs. */
export function costOf(gpu: Gpu, work: (step: Step) => void): StepCost {
  using step = gpu.step()
  work(step)
  return step.cost
}
