import { Gpu, linear, mse, Optimiser, openGpuRoot, Random } from '../src/index.ts'

using gpu = await Gpu.open(await openGpuRoot())
using weights = gpu.scope('weights')
const random = new Random(42)
const truth = random.normals(4 * 8)
const w = weights.filled('f32', [4, 8], 0, 'w')
using optimiser = new Optimiser(gpu, new Map([['w', w]]))

for (let i = 0; i < 200; i++) {
  using step = gpu.step() // owns every tensor born in it, and the tape
  const x = step.upload('f32', [32, 8], random.normals(32 * 8))
  const y = linear(step, x, step.upload('f32', [4, 8], truth))
  const loss = mse(step, linear(step, x, w), y)
  optimiser.update(step, step.backward(loss), 0.05)
  if (i % 50 === 49) console.log(`step ${i + 1}: loss ${(await step.readNumber(loss)).toExponential(2)}`)
}
console.log(`${gpu.live} tensors live: w and its two moments`)
process.exit(0)
