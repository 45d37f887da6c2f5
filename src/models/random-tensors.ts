import type { Random } from '../core/random.ts'
import { type DecoderConfig, expectedTensors } from '../formats/model-config.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'

/** Weights for a new model: see {@link Decoder.random}. */
export function randomTensors(config: DecoderConfig, random: Random, deviation = 0.02): Map<string, CpuTensor> {
  const residual = deviation / Math.sqrt(2 * config.layers)
  const tensors = new Map<string, CpuTensor>()
  for (const [name, shape] of expectedTensors(config)) {
    const size = shape.reduce((all, dimension) => all * dimension, 1)
    const writes = name.endsWith('o_proj.weight') || name.endsWith('down_proj.weight')
    const values = name.endsWith('norm.weight')
      ? new Float32Array(size).fill(1)
      : random.normals(size, writes ? residual : deviation)
    tensors.set(name, cpuTensor('F32', shape, values))
  }
  return tensors
}
