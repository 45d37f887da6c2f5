import type { Gpu } from '../runtime/gpu.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** What a collector holds on the GPU, bit by bit, and its counters: collecting goes on from it as if nothing had happened. */
export interface PcaSnapshot {
  readonly counters: Readonly<Record<string, number>>
  readonly tensors: ReadonlyMap<string, Float32Array>
}

/** Tensors that a snapshot is made of, by name. */
export type HeldTensors = Readonly<Record<string, Tensor<'f32'>>>

/** Reads the tensors of a collector. */
export async function takeSnapshot(
  gpu: Gpu,
  held: HeldTensors,
  counters: Readonly<Record<string, number>>,
): Promise<PcaSnapshot> {
  const tensors = new Map<string, Float32Array>()
  for (const [name, tensor] of Object.entries(held)) tensors.set(name, await gpu.read(tensor))
  return { counters, tensors }
}

/**
 * Writes a snapshot back.
 * @throws RangeError when it is of another dimension or method.
 */
export function putSnapshot(gpu: Gpu, held: HeldTensors, { tensors }: PcaSnapshot): void {
  for (const [name, tensor] of Object.entries(held)) {
    const values = tensors.get(name)
    if (values?.length !== tensor.size)
      throw new RangeError(`Cannot restore a PCA: ${name} has ${values?.length ?? 'no'} elements, want ${tensor.size}`)
    gpu.write(tensor, values)
  }
}

/** The sum of a pair of floats, element by element. */
export function pairOf({ tensors }: PcaSnapshot, name: string): Float64Array {
  const low = tensors.get(`${name}.lo`)!
  return Float64Array.from(tensors.get(`${name}.hi`)!, (value, i) => value + low[i])
}
