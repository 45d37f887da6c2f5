import { type Shape, sizeOf } from '../core/shape.ts'
import { type QuantizedMatrix, writeBitsandbytes } from './bitsandbytes.ts'
import { quantizeInt8 } from './int8.ts'
import { nestedBlockSize, nf4BlockSize, quantizeNf4 } from './nf4.ts'
import type { TensorOutline } from './safetensors.ts'
import type { CpuTensor } from './tensor.ts'

/** Ways to quantise the linear layers of a file. */
export const quantizations = ['nf4', 'nf4-double', 'int8'] as const

/** A way to quantise: NF4 with scales in f32, NF4 with nested scales, or int8 by rows. */
export type Quantization = (typeof quantizations)[number]

/** What the layers around quantised ones are kept and computed in. */
export type RestType = 'float32' | 'float16' | 'bfloat16'

/** Characters of the longest f32 as Python writes it. */
const longestFloat = 25

/**
 * The tensors that a file will hold for a matrix, before it is quantised. What the length of one depends on is only
 * known afterwards (the offset of nested scales, spelled out), so that one gets room enough.
 */
export function outlineQuantized(weight: string, shape: Shape, type: Quantization, rest: RestType): TensorOutline[] {
  const size = sizeOf(shape)
  if (type === 'int8')
    return [
      { name: weight, dtype: 'I8', shape },
      { name: weight.replace(/\.weight$/, '.SCB'), dtype: 'F32', shape: [shape[0]] },
      { name: weight.replace(/\.weight$/, '.weight_format'), dtype: 'U8', shape: [] },
    ]
  const nested = type === 'nf4-double'
  const blocks = Math.ceil(size / nf4BlockSize)
  const text = `{"quant_type": "nf4", "blocksize": ${nf4BlockSize}, "dtype": "${rest}", "shape": [${shape.join(', ')}]`
  const more = `, "nested_blocksize": ${nestedBlockSize}, "nested_dtype": "float32", "nested_offset": `
  const length = text.length + (nested ? more.length + longestFloat : 0) + 1
  return [
    { name: weight, dtype: 'U8', shape: [Math.ceil(size / 2), 1] },
    { name: `${weight}.absmax`, dtype: nested ? 'U8' : 'F32', shape: [blocks] },
    { name: `${weight}.quant_map`, dtype: 'F32', shape: [16] },
    ...(nested
      ? [
          { name: `${weight}.nested_absmax`, dtype: 'F32' as const, shape: [Math.ceil(blocks / nestedBlockSize)] },
          { name: `${weight}.nested_quant_map`, dtype: 'F32' as const, shape: [256] },
        ]
      : []),
    { name: `${weight}.quant_state.bitsandbytes__nf4`, dtype: 'U8', shape: [length] },
  ]
}

/**
 * Quantises a matrix into the tensors that {@link outlineQuantized} promises; the quant_state is filled up with spaces,
 * which JSON allows at its end.
 * @param values f32 (N·K).
 * @throws RangeError when a value is not finite.
 */
export function quantizeForFile(
  weight: string,
  values: Float32Array,
  shape: Shape,
  type: Quantization,
  rest: RestType,
): Map<string, CpuTensor> {
  const tensors = writeBitsandbytes(weight, quantize(values, shape, type, rest))
  for (const { name, dtype, shape: room } of outlineQuantized(weight, shape, type, rest)) {
    const { data } = tensors.get(name)!
    if (!name.includes('quant_state') || data.length === room[0]) continue
    const padded = new Uint8Array(room[0]).fill(0x20)
    padded.set(data)
    tensors.set(name, { dtype, shape: room, data: padded })
  }
  return tensors
}

function quantize(values: Float32Array, shape: Shape, type: Quantization, rest: RestType): QuantizedMatrix {
  if (type === 'int8') {
    const { codes, absmax } = quantizeInt8(values, shape)
    return { type: 'int8', shape, values: codes, rowAbsmax: absmax }
  }
  const common = { type: 'nf4', shape, blockSize: nf4BlockSize, dtype: rest } as const
  if (type === 'nf4') {
    const { codes, scales } = quantizeNf4(values, shape)
    return { ...common, codes, absmax: scales }
  }
  const { codes, scales } = quantizeNf4(values, shape, { doubleQuant: true })
  return { ...common, codes, absmax: { ...scales, blockSize: nestedBlockSize } }
}

/**
 * The quantization_config of a config.json, as transformers writes it. llm_int8_threshold is left to its default: it must
 * be spelled 6.0, which JavaScript's JSON cannot.
 */
export function bitsandbytesConfig(type: Quantization, rest: RestType): object {
  const four = type !== 'int8'
  return {
    _load_in_4bit: four,
    _load_in_8bit: !four,
    bnb_4bit_compute_dtype: rest,
    bnb_4bit_quant_storage: 'uint8',
    bnb_4bit_quant_type: four ? 'nf4' : 'fp4',
    bnb_4bit_use_double_quant: type === 'nf4-double',
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: ['lm_head'],
    load_in_4bit: four,
    load_in_8bit: !four,
    quant_method: 'bitsandbytes',
  }
}
