import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import { type Timing, timingOf } from './timing.ts'

/** ms that all rounds of one work may take, but for the fewest. */
const longest = 1000
const [fewest, most] = [3, 20]

/** What {@link deviceTime} found. */
export interface DeviceTime extends Timing {
  /** Of the kernels that count. */
  readonly flops: number
  readonly bytes: number
}

/**
 * Times the kernels of `work` by the GPU's own clock, each in a pass of its own: without the submit and the wait, which are
 * most of the time of a small op on a fast GPU. Medians of 3 to 20 rounds after one that compiles.
 * @param before the part of `work` whose kernels do not count; none unless told.
 * @throws GpuError when the adapter has no timestamps.
 */
export async function deviceTime(
  gpu: Gpu,
  work: (step: Step) => void,
  before: (step: Step) => void = () => {},
): Promise<DeviceTime> {
  const once = async (part: (step: Step) => void) => {
    const kernels = await gpu.profile(async () => {
      using step = gpu.step()
      part(step)
    })
    return new Map(kernels.map((found) => [found.kernel, found]))
  }
  await once(work)
  const times: number[] = []
  let [flops, bytes, total] = [0, 0, 0]
  while (times.length < most && (times.length < fewest || total < longest)) {
    const [kernels, known] = [await once(work), await once(before)]
    let ms = 0
    flops = 0
    bytes = 0
    for (const [name, own] of kernels) {
      // A kernel that both have counts for what it does beyond that.
      const base = known.get(name)
      ms += own.ms - (base?.ms ?? 0)
      flops += own.flops - (base?.flops ?? 0)
      bytes += own.bytes - (base?.bytes ?? 0)
    }
    times.push(ms)
    total += ms
  }
  return { ...timingOf(times), flops, bytes }
}
