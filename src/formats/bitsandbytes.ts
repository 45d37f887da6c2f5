import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import { nf4Levels } from './nf4.ts'
import { parseJsonStrictly } from './strict-json.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from './tensor.ts'

/** A matrix as bitsandbytes keeps it in a file. */
export type QuantizedMatrix = Nf4Matrix | Int8Matrix

/** A matrix of 4-bit codes with a scale for each block of the flattened matrix. */
export interface Nf4Matrix {
  readonly type: 'nf4'
  /** (out, in). */
  readonly shape: Shape
  /** (⌈size / 2⌉) bytes, the first value of each in its high nibble. */
  readonly codes: Uint8Array
  /** Values of a block. */
  readonly blockSize: number
  /** What the matrix was quantised from, and is computed as. */
  readonly dtype: 'float32' | 'float16' | 'bfloat16'
  /** The largest magnitude of each block, or how it is itself quantised. */
  readonly absmax: Float32Array | NestedScales
}

/** Scales in 8 bits: map[codes[i]] · absmax[⌊i / blockSize⌋] + offset. */
export interface NestedScales {
  readonly codes: Uint8Array
  readonly absmax: Float32Array
  /** The 256 values that codes stand for. */
  readonly map: Float32Array
  readonly offset: number
  /** Scales of a block. */
  readonly blockSize: number
}

/** A matrix of 8-bit integers with the largest magnitude of each row: value · rowAbsmax / 127. */
export interface Int8Matrix {
  readonly type: 'int8'
  /** (out, in). */
  readonly shape: Shape
  readonly values: Int8Array
  readonly rowAbsmax: Float32Array
}

/** What {@link readBitsandbytes} finds. */
export interface BitsandbytesTensors {
  /** By the name of the layer's weight: model.layers.0.self_attn.q_proj.weight. */
  readonly matrices: Map<string, QuantizedMatrix>
  /** The tensors that belong to no quantised matrix. */
  readonly rest: Map<string, CpuTensor>
}

const stateKey = 'quant_state.bitsandbytes__'
const dtypes = ['float32', 'float16', 'bfloat16'] as const

/**
 * Takes the quantised matrices out of a file's tensors, checked: NF4 with and without double quantisation, and int8.
 * @throws SyntaxError naming the tensor that is missing, does not fit or is of an unsupported kind.
 * @see bitsandbytes, functional.py `QuantState.from_dict`, nn/modules.py `Linear8bitLt`.
 */
export function readBitsandbytes(tensors: ReadonlyMap<string, CpuTensor>): BitsandbytesTensors {
  const matrices = new Map<string, QuantizedMatrix>()
  const used = new Set<string>()
  const take = (name: string): CpuTensor | undefined => {
    const tensor = tensors.get(name)
    if (tensor) used.add(name)
    return tensor
  }
  for (const name of tensors.keys()) {
    const state = name.indexOf(`.${stateKey}`)
    if (state >= 0) {
      const weight = name.slice(0, state)
      const kind = name.slice(state + stateKey.length + 1)
      if (kind !== 'nf4') throw fault(weight, `it is quantised as ${kind}; supported are nf4 and int8`)
      matrices.set(weight, readNf4(weight, take))
    } else if (name.endsWith('.SCB')) {
      const layer = name.slice(0, -'.SCB'.length)
      matrices.set(`${layer}.weight`, readInt8(layer, take))
    }
  }
  return { matrices, rest: new Map([...tensors].filter(([name]) => !used.has(name))) }
}

type Take = (name: string) => CpuTensor | undefined

function fault(name: string, reason: string): SyntaxError {
  return new SyntaxError(`Cannot read ${name} of bitsandbytes: ${reason}`)
}

function need(take: Take, weight: string, key: string, dtype: string, size?: number): CpuTensor {
  const name = key === '' ? weight : `${weight}.${key}`
  const tensor = take(name)
  if (!tensor) throw fault(weight, `${name} is missing`)
  if (tensor.dtype !== dtype || (size !== undefined && sizeOf(tensor.shape) !== size))
    throw fault(
      weight,
      `${name} must be ${dtype} with ${size ?? 'any number of'} values, it is ${tensor.dtype} ${showShape(tensor.shape)}`,
    )
  return tensor
}

function readNf4(weight: string, take: Take): Nf4Matrix {
  const text = new TextDecoder().decode(need(take, weight, `${stateKey}nf4`, 'U8').data)
  let state: unknown
  try {
    state = parseJsonStrictly(text)
  } catch (error) {
    throw fault(weight, `its quant_state is not valid JSON (${(error as Error).message})`)
  }
  if (!(state instanceof Map)) throw fault(weight, 'its quant_state is no object')
  const [shape, blockSize, dtype] = [state.get('shape'), state.get('blocksize'), state.get('dtype')]
  const fields = state
  const number = (key: string, fits: (value: number) => boolean): number => {
    const value = fields.get(key)
    if (typeof value !== 'number' || !fits(value)) throw fault(weight, `${key} is ${JSON.stringify(value)}`)
    return value
  }
  if (state.get('quant_type') !== 'nf4') throw fault(weight, `quant_type is ${JSON.stringify(state.get('quant_type'))}`)
  if (!Array.isArray(shape) || shape.length !== 2 || !shape.every((size) => Number.isSafeInteger(size) && size > 0))
    throw fault(weight, `shape is ${JSON.stringify(shape)}; it must be two sizes`)
  if (!dtypes.includes(dtype)) throw fault(weight, `dtype is ${JSON.stringify(dtype)}`)
  const isBlock = (value: number) => Number.isInteger(Math.log2(value)) && value >= 16 && value <= 4096
  number('blocksize', isBlock)
  const size = sizeOf(shape)
  const blocks = Math.ceil(size / blockSize)
  const codes = need(take, weight, '', 'U8', Math.ceil(size / 2)).data
  const map = toFloat32(need(take, weight, 'quant_map', 'F32', 16))
  if (map.some((level, i) => level !== nf4Levels[i])) throw fault(weight, 'its quant_map is not that of NF4')
  const common = { type: 'nf4', shape: shape as number[], codes, blockSize, dtype } as const
  if (!state.has('nested_blocksize'))
    return { ...common, absmax: toFloat32(need(take, weight, 'absmax', 'F32', blocks)) }
  const nestedBlock = number('nested_blocksize', isBlock)
  const nested = {
    codes: need(take, weight, 'absmax', 'U8', blocks).data,
    absmax: toFloat32(need(take, weight, 'nested_absmax', 'F32', Math.ceil(blocks / nestedBlock))),
    map: toFloat32(need(take, weight, 'nested_quant_map', 'F32', 256)),
    offset: number('nested_offset', Number.isFinite),
    blockSize: nestedBlock,
  }
  return { ...common, absmax: nested }
}

function readInt8(layer: string, take: Take): Int8Matrix {
  const weight = `${layer}.weight`
  const values = need(take, weight, '', 'I8')
  if (values.shape.length !== 2) throw fault(weight, `it must be a matrix, it is ${showShape(values.shape)}`)
  const scales = take(`${layer}.SCB`)!
  if (scales.dtype !== 'F32' || sizeOf(scales.shape) !== values.shape[0])
    throw fault(
      weight,
      `${layer}.SCB must be F32 with ${values.shape[0]} values, it is ${scales.dtype} ${showShape(scales.shape)}`,
    )
  const format = take(`${layer}.weight_format`)?.data.find((byte) => byte !== 0)
  if (format !== undefined) throw fault(weight, `its weight_format is ${format}; only 0, by rows, is supported`)
  const { buffer, byteOffset, length } = values.data
  return {
    type: 'int8',
    shape: values.shape,
    values: new Int8Array(buffer, byteOffset, length),
    rowAbsmax: toFloat32(scales),
  }
}

/** The tensors that a file holds for a matrix, by name, byte for byte as bitsandbytes makes them. */
export function writeBitsandbytes(weight: string, matrix: QuantizedMatrix): Map<string, CpuTensor> {
  if (matrix.type === 'int8') {
    const { shape, values, rowAbsmax } = matrix
    const layer = weight.replace(/\.weight$/, '')
    return new Map<string, CpuTensor>([
      [weight, cpuTensor('I8', shape, values)],
      [`${layer}.SCB`, cpuTensor('F32', [shape[0]], rowAbsmax)],
      [`${layer}.weight_format`, cpuTensor('U8', [], [0])],
    ])
  }
  const { shape, codes, blockSize, dtype, absmax } = matrix
  const nested = absmax instanceof Float32Array ? undefined : absmax
  const state = [
    '"quant_type": "nf4"',
    `"blocksize": ${blockSize}`,
    `"dtype": "${dtype}"`,
    `"shape": [${shape.join(', ')}]`,
    ...(nested ? [`"nested_blocksize": ${nested.blockSize}`, '"nested_dtype": "float32"'] : []),
    ...(nested ? [`"nested_offset": ${pythonFloat(nested.offset)}`] : []),
  ]
  const text = new TextEncoder().encode(`{${state.join(', ')}}`)
  const blocks = Math.ceil(sizeOf(shape) / blockSize)
  return new Map<string, CpuTensor>([
    [weight, cpuTensor('U8', [Math.ceil(sizeOf(shape) / 2), 1], codes)],
    [
      `${weight}.absmax`,
      nested ? cpuTensor('U8', [blocks], nested.codes) : cpuTensor('F32', [blocks], absmax as Float32Array),
    ],
    [`${weight}.quant_map`, cpuTensor('F32', [16], nf4Levels)],
    ...(nested
      ? ([
          [`${weight}.nested_absmax`, cpuTensor('F32', [nested.absmax.length], nested.absmax)],
          [`${weight}.nested_quant_map`, cpuTensor('F32', [256], nested.map)],
        ] as const)
      : []),
    [`${weight}.${stateKey}nf4`, cpuTensor('U8', [text.length], text)],
  ])
}

/** A number as Python's repr writes a float: exponents of two digits, from 1e16 up and below 1e-4. */
function pythonFloat(value: number): string {
  const magnitude = Math.abs(value)
  if (magnitude !== 0 && (magnitude < 1e-4 || magnitude >= 1e16))
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2')
  return Number.isInteger(value) ? `${Object.is(value, -0) ? '-0' : value}.0` : String(value)
}

/** The scale of each block of an NF4 matrix, in f32 arithmetic. */
export function blockScales({ absmax }: Nf4Matrix): Float32Array {
  if (absmax instanceof Float32Array) return absmax
  const { codes, map, offset, blockSize } = absmax
  const shift = Math.fround(offset)
  return Float32Array.from(
    codes,
    (code, i) => Math.fround(map[code] * absmax.absmax[Math.floor(i / blockSize)]) + shift,
  )
}

/**
 * The f32 values that rows of a matrix stand for, before bitsandbytes rounds them to the dtype of its layer.
 * @param count all rows that follow `first` unless told.
 */
export function dequantizeBitsandbytes(matrix: QuantizedMatrix, first = 0, count?: number): Float32Array<ArrayBuffer> {
  const [rows, columns] = matrix.shape
  const y = new Float32Array((count ?? rows - first) * columns)
  const begin = first * columns
  if (matrix.type === 'int8') {
    for (let i = 0; i < y.length; i++)
      y[i] = Math.fround(matrix.values[begin + i] * matrix.rowAbsmax[first + Math.floor(i / columns)]) / 127
    return y
  }
  const scales = blockScales(matrix)
  for (let i = 0; i < y.length; i++) {
    const at = begin + i
    const byte = matrix.codes[at >> 1]
    y[i] = nf4Levels[at % 2 === 0 ? byte >> 4 : byte & 15] * scales[Math.floor(at / matrix.blockSize)]
  }
  return y
}
