// Loads a model in a process of its own and prints what that took: node tests/models/load-memory.ts <model> <storage>.
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { peakMemory } from '../../src/host/peak-memory.ts'
import { Decoder } from '../../src/models/decoder.ts'
import type { WeightStorage } from '../../src/models/decoder-weights.ts'
import { openModel } from '../../src/models/open-model.ts'
import { Gpu } from '../../src/runtime/gpu.ts'

const [path, storage] = process.argv.slice(2)
const gpu = await Gpu.open(await openGpuRoot())
// What the driver takes for its first buffers is no part of the model.
gpu.scope('first').filled('f32', [1024], 1)
await gpu.finish()
const files = await openModel(path)
const before = process.memoryUsage.rss()
const started = performance.now()
await Decoder.open(gpu, files.weights, { storage: storage as WeightStorage })
const seconds = (performance.now() - started) / 1000
const { liveBytes, pooledBytes } = gpu.memory
const most = peakMemory()
// A GPU in software keeps its buffers in the memory of the process.
const onGpu = gpu.software ? liveBytes + pooledBytes : 0
console.log(JSON.stringify({ storage, gpuBytes: liveBytes, before, most, above: most - before - onGpu, seconds }))
process.exit(0)
