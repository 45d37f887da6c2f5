/** An axis: what its numbers are, and where they lie. */
export interface Axis {
  readonly label: string
  /** Linear unless told. */
  readonly scale?: 'linear' | 'log'
  /** Ends; those of the data unless told. */
  readonly from?: number
  readonly to?: number
}

/** From numbers to places between 0 and 1, and the numbers to write on the axis. */
export interface Scale {
  at(value: number): number
  readonly ticks: readonly number[]
}

/** The scale of an axis over `values`; what a logarithmic one cannot show is left out. */
export function scaleOf({ scale = 'linear', from, to }: Axis, values: readonly number[]): Scale {
  const usable = values.filter((value) => Number.isFinite(value) && (scale === 'linear' || value > 0))
  const least = from ?? usable.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
  const most = to ?? usable.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const [low, high] = least <= most ? [least, most] : [1, 2]
  const exact = from !== undefined && to !== undefined
  return scale === 'log' ? logarithmic(low, high) : linear(low, high, exact)
}

function logarithmic(low: number, high: number): Scale {
  const begin = Math.floor(Math.log10(low) + 1e-9)
  const end = Math.max(begin + 1, Math.log10(high))
  const each = Math.ceil((end - begin) / 6)
  const ticks: number[] = []
  for (let power = begin; power <= end + 1e-9; power += each) ticks.push(10 ** power)
  return { at: (value) => (Math.log10(value) - begin) / (end - begin), ticks }
}

/** @param exact the ends are taken as they are; otherwise they are moved out to round numbers. */
function linear(low: number, high: number, exact: boolean): Scale {
  const span = high > low ? high - low : Math.abs(high) || 1
  const raw = span / 4
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw)!
  const begin = Math.floor(low / step + 1e-9) * step
  const end = Math.max(begin + step, Math.ceil(high / step - 1e-9) * step)
  const count = Math.round((end - begin) / step)
  const ticks = Array.from({ length: count + 1 }, (_, i) => begin + i * step)
  const inside = exact ? ticks.filter((tick) => tick >= low && tick <= high) : ticks
  const [first, last] = exact && high > low ? [low, high] : [begin, end]
  return { at: (value) => (value - first) / (last - first), ticks: inside }
}

/** A number as short as it can be read: `0.05`, `1.2k`, `3e-7`. */
export function shortNumber(value: number): string {
  const size = Math.abs(value)
  if (size === 0) return '0'
  if (size >= 1e6 || size < 1e-3) return value.toExponential(0).replace('e+', 'e')
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(2))}k`
  return String(Number(value.toPrecision(3)))
}
