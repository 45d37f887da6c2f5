import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { parseJsonStrictly } from '../formats/strict-json.ts'
import { type CpuTensor, cpuTensor, toFloat64 } from '../formats/tensor.ts'
import { type AnyPcaState, isSketch } from './pca-state.ts'

const format = 'nexus-pca-state-1'

/**
 * A state as a safetensors file, every number kept to its last bit. The scatter is stored as its upper triangle, row by
 * row; the numbers that are no tensors are JSON in the metadata under `pca`.
 */
export function savePcaState(state: AnyPcaState): Uint8Array<ArrayBuffer> {
  const d = state.mean.length
  const tensors = new Map<string, CpuTensor>([['mean', cpuTensor('F64', [d], state.mean)]])
  let facts: Record<string, number | string>
  if (isSketch(state)) {
    facts = { kind: 'frequent-directions', count: state.count, size: state.size, shed: state.shed }
    tensors.set('rows', cpuTensor('F64', [state.rows.length / d, d], state.rows))
    tensors.set('diagonal', cpuTensor('F64', [d], state.diagonal))
  } else {
    facts = { kind: 'covariance', count: state.count }
    const triangle = new Float64Array((d * (d + 1)) / 2)
    for (let i = 0, at = 0; i < d; i++)
      for (let j = i; j < d; j++, at++) triangle[at] = (state.scatter[i * d + j] + state.scatter[j * d + i]) / 2
    tensors.set('scatter', cpuTensor('F64', [triangle.length], triangle))
  }
  return writeSafetensors(tensors, { format, pca: JSON.stringify(facts) })
}

/**
 * The state that {@link savePcaState} wrote.
 * @throws SyntaxError naming what is wrong with the file.
 */
export function loadPcaState(bytes: Uint8Array): AnyPcaState {
  const fault = (reason: string) => new SyntaxError(`Cannot read a PCA state: ${reason}`)
  const { tensors, metadata } = parseSafetensors(bytes)
  if (metadata.format !== format) throw fault(`its format is ${metadata.format ?? 'not named'}, want ${format}`)
  const facts = parseJsonStrictly(metadata.pca ?? 'null')
  if (!(facts instanceof Map)) throw fault('its metadata lacks the object pca')
  const number = (name: string, whole: boolean) => {
    const value: unknown = facts.get(name)
    if (typeof value !== 'number' || value < 0 || (whole && !Number.isSafeInteger(value)))
      throw fault(`${name} must be a number from 0 on, got ${JSON.stringify(value)}`)
    return value
  }
  const read = (name: string, length?: number) => {
    const tensor = tensors.get(name)
    if (!tensor) throw fault(`the tensor ${name} is missing`)
    const values = toFloat64(tensor)
    if (length !== undefined && values.length !== length)
      throw fault(`the tensor ${name} has ${values.length} elements, want ${length}`)
    return values
  }
  const mean = read('mean')
  const d = mean.length
  const kind: unknown = facts.get('kind')
  if (kind === 'frequent-directions') {
    const rows = read('rows')
    if (rows.length % d !== 0) throw fault(`the tensor rows has ${rows.length} elements, no multiple of ${d}`)
    const diagonal = read('diagonal', d)
    return {
      count: number('count', true),
      mean,
      size: number('size', true),
      rows,
      diagonal,
      shed: number('shed', false),
    }
  }
  if (kind !== 'covariance') throw fault(`its kind is ${JSON.stringify(kind)}`)
  const triangle = read('scatter', (d * (d + 1)) / 2)
  const scatter = new Float64Array(d * d)
  for (let i = 0, at = 0; i < d; i++)
    for (let j = i; j < d; j++, at++) scatter[i * d + j] = scatter[j * d + i] = triangle[at]
  return { count: number('count', true), mean, scatter }
}
