import type { Shape } from '../core/shape.ts'
import { dequantizeBitsandbytes, type QuantizedMatrix, readBitsandbytes } from './bitsandbytes.ts'
import type { SafetensorsFiles } from './shards.ts'
import type { CpuTensor } from './tensor.ts'
import type { WeightFile } from './weights.ts'

const stateMark = '.quant_state.bitsandbytes__'

/**
 * The tensors of a model, those that bitsandbytes quantised as the values that they stand for. The codes of the matrix
 * that was read last are kept, so that it can be read in windows of rows.
 * @throws SyntaxError naming the matrix whose parts do not fit.
 */
export async function bitsandbytesWeights(files: SafetensorsFiles): Promise<WeightFile> {
  const plain = files.weights()
  const quantized = quantizedNames(files.entries.keys())
  if (quantized.size === 0) return plain
  const load = async (name: string): Promise<QuantizedMatrix> => {
    const parts = new Map<string, CpuTensor>()
    for (const part of quantized.get(name)!) parts.set(part, await files.read(part))
    return readBitsandbytes(parts).matrices.get(name)!
  }
  let last: { readonly name: string; readonly matrix: QuantizedMatrix } | undefined
  const shapes = new Map<string, Shape>()
  const parts = new Set([...quantized.values()].flat())
  for (const [name, shape] of plain.shapes) if (!parts.has(name)) shapes.set(name, shape)
  for (const name of quantized.keys()) shapes.set(name, await quantizedShape(files, name))
  return {
    scheme: plain.scheme,
    shapes,
    async rows(name, first, count) {
      if (!quantized.has(name)) return plain.rows(name, first, count)
      if (last?.name !== name) {
        last = undefined
        last = { name, matrix: await load(name) }
      }
      const { matrix } = last
      const [rows] = matrix.shape
      if (first < 0 || count < 0 || first + count > rows)
        throw new RangeError(`Cannot read rows ${first} to ${first + count} of ${name}: it has ${rows}`)
      return dequantizeBitsandbytes(matrix, first, count)
    },
  }
}

/**
 * What a quantised matrix is without its codes being read: the shape that it stands for.
 * @throws SyntaxError when its quant_state is none.
 */
export async function quantizedShape(files: SafetensorsFiles, weight: string): Promise<Shape> {
  const entry = files.entries.get(`${weight}${stateMark}nf4`)
  if (!entry) {
    const plain = files.entries.get(weight)
    if (!plain) throw new SyntaxError(`Cannot read ${weight} of bitsandbytes: ${weight} is missing`)
    return plain.shape
  }
  const text = new TextDecoder().decode((await files.read(entry.name)).data)
  let shape: unknown
  try {
    shape = (JSON.parse(text) as { shape?: unknown } | null)?.shape
  } catch (error) {
    throw new SyntaxError(
      `Cannot read ${weight} of bitsandbytes: its quant_state is not valid JSON (${(error as Error).message})`,
    )
  }
  if (!Array.isArray(shape) || shape.length !== 2 || !shape.every((size) => Number.isSafeInteger(size) && size > 0))
    throw new SyntaxError(`Cannot read ${weight} of bitsandbytes: shape is ${JSON.stringify(shape)}`)
  return shape as number[]
}

/** The quantised matrices among tensors' names, each with the names of all its parts. */
export function quantizedNames(names: Iterable<string>): Map<string, string[]> {
  const all = [...names]
  const found = new Map<string, string[]>()
  for (const name of all) {
    if (name.includes(stateMark)) found.set(name.slice(0, name.indexOf(stateMark)), [])
    else if (name.endsWith('.SCB')) found.set(`${name.slice(0, -'.SCB'.length)}.weight`, [])
  }
  for (const name of all) {
    const owner = [...ownersOf(name)].find((weight) => found.has(weight))
    if (owner !== undefined) found.get(owner)!.push(name)
  }
  return found
}

/** The matrices that a tensor can be a part of, by its name. */
function* ownersOf(name: string): Generator<string> {
  yield name
  const mark = name.indexOf(stateMark)
  if (mark >= 0) yield name.slice(0, mark)
  yield name.replace(/\.(absmax|quant_map|nested_absmax|nested_quant_map)$/, '')
  yield name.replace(/\.(SCB|weight_format)$/, '.weight')
}
