// What a step of training a low-rank update should give, in plain f64 loops.
import type { Array64 } from '../../tests/reference/array64.ts'
import { silu64 } from '../../tests/reference/rows.ts'
import type { Inputs } from './cases.ts'

/** The gradient of A (rank, C) of Σ y², y = down · (silu(gate x + scale · B A x) · up x). */
export function loraStep64({ x, gate, up, down, a, b }: Inputs, scale: number): Array64 {
  const [tokens, width] = x.shape
  const [hidden, rank] = b.shape
  const dot = (left: ArrayLike<number>, row: number, right: ArrayLike<number>, other: number, length: number) => {
    let total = 0
    for (let i = 0; i < length; i++) total += left[row * length + i] * right[other * length + i]
    return total
  }
  const sums = new Float64Array(rank * width)
  for (let t = 0; t < tokens; t++) {
    const thin = Float64Array.from({ length: rank }, (_, r) => dot(x.data, t, a.data, r, width))
    const g = Float64Array.from(
      { length: hidden },
      (_, h) => dot(x.data, t, gate.data, h, width) + scale * dot(b.data, h, thin, 0, rank),
    )
    const u = Float64Array.from({ length: hidden }, (_, h) => dot(x.data, t, up.data, h, width))
    const inside = g.map((value, h) => silu64(value) * u[h])
    const dinside = new Float64Array(hidden)
    for (let c = 0; c < width; c++) {
      const y = dot(down.data, c, inside, 0, hidden)
      for (let h = 0; h < hidden; h++) dinside[h] += 2 * y * down.data[c * hidden + h]
    }
    for (let r = 0; r < rank; r++) {
      let slope = 0
      for (let h = 0; h < hidden; h++) {
        const sigmoid = 1 / (1 + Math.exp(-g[h]))
        slope += dinside[h] * u[h] * sigmoid * (1 + g[h] * (1 - sigmoid)) * b.data[h * rank + r]
      }
      for (let c = 0; c < width; c++) sums[r * width + c] += scale * slope * x.data[t * width + c]
    }
  }
  return { shape: [rank, width], data: sums }
}
