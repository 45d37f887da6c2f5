const { fround } = Math

/**
 * The 256 values, ascending, that bitsandbytes' signed dynamic 8-bit codes stand for: seven decades on each side of
 * zero, the larger ones divided more finely.
 * @see Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021, section 1.3.
 */
export const dynamicMap: Float32Array<ArrayBuffer> = makeMap(true)

/** The 256 values, ascending, of the unsigned codes: 0, and seven decades up to 1, each twice as fine as the signed ones. */
export const unsignedDynamicMap: Float32Array<ArrayBuffer> = makeMap(false)

function makeMap(signed: boolean): Float32Array<ArrayBuffer> {
  const values = [0, 1]
  for (let decade = 0; decade < 7; decade++) {
    const bounds = linspace((signed ? 1 : 2) * 2 ** decade + 1)
    const unit = fround(10 ** (decade - 6))
    for (let i = 0; i + 1 < bounds.length; i++) {
      const mean = fround(fround(bounds[i] + bounds[i + 1]) / 2)
      values.push(fround(unit * mean))
      if (signed) values.push(fround(-unit * mean))
    }
  }
  return Float32Array.from(values).sort()
}

/**
 * `count` numbers from 0.1 to 1, with the rounding that made the published map: PyTorch's linspace, which computes the
 * first of eight lanes from the nearer end and steps from there, and what is left over of 16 one by one.
 */
function linspace(count: number): number[] {
  const start = fround(0.1)
  const step = fround(fround(1 - start) / (count - 1))
  const vectors = count - (count % 16)
  const exact = (i: number) =>
    i < Math.floor(count / 2) ? fround(start + step * i) : fround(1 - fround(step * (count - 1 - i)))
  return Array.from({ length: count }, (_, i) =>
    i < vectors ? fround(exact(i - (i % 8)) + fround(step * (i % 8))) : exact(i),
  )
}

/**
 * The code of `value` in {@link dynamicMap}: the nearest one, ties as bitsandbytes' CUDA search breaks them.
 * @param value from -1 to 1, f32. NaN gives 0.
 */
export function dynamicCode(value: number): number {
  let [pivot, lower, upper] = [127, 0, 255]
  for (let step = 64; step > 0; step >>= 1) {
    if (value > dynamicMap[pivot]) {
      lower = pivot
      pivot += step
    } else {
      upper = pivot
      pivot -= step
    }
  }
  const here = dynamicMap[pivot]
  if (value > here) return value > fround(fround(dynamicMap[upper] + here) * 0.5) ? upper : pivot
  return value < fround(fround(dynamicMap[lower] + here) * 0.5) ? lower : pivot
}
