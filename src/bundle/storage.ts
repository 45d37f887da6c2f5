import { BundleError } from '../core/errors.ts'
import type { Shape } from '../core/shape.ts'
import { dequantizeBitsandbytes, readBitsandbytes, writeBitsandbytes } from '../formats/bitsandbytes.ts'
import { quantizeInt8 } from '../formats/int8.ts'
import { nf4BlockSize, quantizeNf4 } from '../formats/nf4.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { BundleStorage } from './manifest.ts'

const isLinear = (name: string) => name.endsWith('_proj.weight')

/**
 * The tensors of a backbone as a bundle holds them: the linear layers as `storage` says, in the layout of bitsandbytes;
 * embedding, head and norms in f16.
 * @param tensors by the names of Hugging Face files, floats.
 * @throws RangeError when a value is not finite, or NF4 meets a layer with an odd number of values.
 */
export function packBackbone(tensors: ReadonlyMap<string, CpuTensor>, storage: BundleStorage): Map<string, CpuTensor> {
  const packed = new Map<string, CpuTensor>()
  for (const [name, tensor] of tensors)
    for (const [key, part] of packTensor(name, tensor, storage)) packed.set(key, part)
  return packed
}

function packTensor(name: string, tensor: CpuTensor, storage: BundleStorage): Iterable<[string, CpuTensor]> {
  const { shape, dtype } = tensor
  if (storage === 'f16' || !isLinear(name))
    return [[name, dtype === 'F16' ? tensor : cpuTensor('F16', shape, toFloat32(tensor))]]
  const values = toFloat32(tensor)
  if (storage === 'int8') {
    const { codes, absmax } = quantizeInt8(values, shape)
    return writeBitsandbytes(name, { type: 'int8', shape, values: codes, rowAbsmax: absmax })
  }
  const { codes, scales } = quantizeNf4(values, shape)
  const blocks = { blockSize: nf4BlockSize, dtype: 'float16', absmax: scales } as const
  return writeBitsandbytes(name, { type: 'nf4', shape, codes, ...blocks })
}

/**
 * Shapes of a packed backbone's tensors, quantised ones by what they stand for.
 * @throws BundleError when one is held otherwise than `storage` says, SyntaxError when a quantised one is not whole.
 */
export function backboneShapes(
  tensors: ReadonlyMap<string, CpuTensor>,
  storage: BundleStorage,
): Map<string, { readonly shape: Shape }> {
  const { matrices, rest } = readBitsandbytes(tensors)
  for (const [name, matrix] of matrices) {
    if (matrix.type !== storage || !isLinear(name))
      throw new BundleError(`${name} is held in ${matrix.type}, the bundle says ${storage}`)
    // What stands beside the codes is exactly what packing writes: no field or byte more.
    for (const [key, { data }] of writeBitsandbytes(name, matrix)) {
      const held = tensors.get(key)?.data
      if (held?.length !== data.length || data.some((byte, i) => byte !== held[i]))
        throw new BundleError(`${key} is not as packing writes it`)
    }
  }
  for (const [name, { dtype }] of rest)
    if (dtype !== 'F16' || (storage !== 'f16' && isLinear(name)))
      throw new BundleError(`${name} is held in ${dtype}, the bundle says ${storage}`)
  return new Map<string, { readonly shape: Shape }>([...rest, ...matrices])
}

/**
 * A packed backbone as dense tensors, for a decoder that quantises by itself. NF4 comes back to the same codes and
 * scales: the value of largest magnitude in each block is its scale.
 */
export function unpackBackbone(tensors: ReadonlyMap<string, CpuTensor>): Map<string, CpuTensor> {
  const { matrices, rest } = readBitsandbytes(tensors)
  const dense = new Map(rest)
  for (const [name, matrix] of matrices) dense.set(name, cpuTensor('F32', matrix.shape, dequantizeBitsandbytes(matrix)))
  return dense
}
