import { openGpuRoot } from '../host/gpu-root.ts'
import { Gpu } from '../runtime/gpu.ts'
import type { Output } from './output.ts'
import { loadTuning } from './tuning-store.ts'

/** Opens the GPU that a command runs on, and says which one it is. */
export async function openGpu(output: Output, adapter?: string): Promise<Gpu> {
  const root = await openGpuRoot({ adapter, say: (line) => output.say(line) })
  const gpu = await Gpu.open(root)
  output.say(`Running on ${root.name}${root.software ? ' (a GPU in software)' : ''}`)
  output.emit('adapter', { name: root.name, software: root.software })
  await loadTuning(gpu)
  gpu.onLost((message) => output.say(`The GPU device was lost: ${message}`))
  return gpu
}
