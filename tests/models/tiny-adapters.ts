import { Random } from '../../src/core/random.ts'
import { type LinearName, linearShapes } from '../../src/formats/model-config.ts'
import type { ModelConfig } from '../../src/formats/model-family.ts'
import type { LoraModule } from '../../src/formats/peft.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'

/** An adapter with a rank and a scale of its own for each module, some modules left out. */
export function tinyAdapter(config: ModelConfig): LoraModule[] {
  const random = new Random(9)
  const modules: LoraModule[] = []
  for (let layer = 0; layer < config.layers; layer++)
    for (const [at, [linear, [n, k]]] of (
      Object.entries(linearShapes(config)) as [LinearName, [number, number]][]
    ).entries()) {
      const rank = (layer * 7 + at * 3) % 5
      if (rank === 0) continue
      const a = cpuTensor('F32', [rank, k], random.normals(rank * k, 0.3))
      const b = cpuTensor('F32', [n, rank], random.normals(n * rank, 0.3))
      modules.push({
        module: `model.layers.${layer}.${linear}`,
        a,
        b,
        rank,
        scale: [0.5, 1, 1.25, 2][(layer + at) % 4],
      })
    }
  return modules
}
