// Our side of a comparison. A timed run records the op into a step, submits it, waits until the queue is done, and
// gives the step's memory back.
import type { Gpu } from '../../src/runtime/gpu.ts'
import type { StepCost } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import type { Inputs, PeerCase } from './cases.ts'
import { type Prepared, timeRuns } from './peer.ts'

/** The case on our GPU, its cost, and the number of elements of its result. */
export function prepareOurs(gpu: Gpu, item: PeerCase, inputs: Inputs) {
  const scope = gpu.scope(item.name)
  const tensors: Record<string, Tensor> = {}
  for (const [name, { dtype, shape, data }] of Object.entries(inputs))
    tensors[name] = scope.upload(dtype, shape, data, name)
  const cost = (): { cost: StepCost; size: number } => {
    using step = gpu.step()
    const { size } = step.withoutGradients(() => item.ours(step, tensors))
    return { cost: step.cost, size }
  }
  const prepared: Prepared = {
    async run() {
      using step = gpu.step()
      step.withoutGradients(() => item.ours(step, tensors))
      await gpu.finish()
    },
    async read() {
      using step = gpu.step()
      return step.read(step.withoutGradients(() => item.ours(step, tensors)))
    },
    free: () => scope[Symbol.dispose](),
  }
  return { ...cost(), ...prepared, time: (count: number) => timeRuns(prepared, count) }
}
