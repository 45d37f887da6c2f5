const scratch = new Float32Array(1)
const bits = new Uint32Array(scratch.buffer)

/**
 * The bits of the IEEE 754 binary16 nearest to `value`, ties to even; overflow gives infinity, NaN stays NaN.
 * @param value any number; it is rounded to f32 first, as the GPU would see it.
 */
export function toHalf(value: number): number {
  scratch[0] = value
  const x = bits[0]
  const sign = (x >>> 16) & 0x8000
  const exponent = (x >>> 23) & 0xff
  const mantissa = x & 0x7fffff
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200)
  const e = exponent - 112
  if (e >= 31) return sign | 0x7c00
  if (e <= 0) {
    if (e < -10) return sign
    return sign | roundShift(mantissa | 0x800000, 14 - e)
  }
  // A carry out of the mantissa walks into the exponent, which is the right result, infinity included.
  return sign | ((e << 10) + roundShift(mantissa, 13))
}

/** The number that 16 bits of IEEE 754 binary16 stand for. */
export function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >>> 10) & 0x1f
  const mantissa = half & 0x3ff
  if (exponent === 0) return sign * mantissa * 2 ** -24
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
}

function roundShift(value: number, shift: number): number {
  const floor = value >>> shift
  const rest = value & ((1 << shift) - 1)
  const tie = 1 << (shift - 1)
  return rest > tie || (rest === tie && floor & 1) ? floor + 1 : floor
}
