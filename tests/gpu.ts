import { openGpuRoot } from '../src/host/gpu-root.ts'
import '../src/kernels/add.ts' // the tape adds gradients with it
import { Gpu } from '../src/runtime/gpu.ts'

/** The GPU that all tests of a worker share, with guards: fresh tensors are NaN, and their ends are watched. */
export const gpu = await Gpu.open(await openGpuRoot(), { guards: true })

/** Runs `work` and fails when it leaves GPU memory behind. */
export async function withoutLeaks<T>(work: () => T | Promise<T>): Promise<T> {
  const before = gpu.live
  const result = await work()
  if (gpu.live !== before) throw new Error(`${gpu.live - before} blocks of GPU memory were left behind`)
  return result
}
