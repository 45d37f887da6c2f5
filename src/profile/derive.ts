import type { LinearName } from '../formats/model-config.ts'
import type { Decoder } from '../models/decoder.ts'
import { type AnyPcaState, isSketch } from '../pca/pca-state.ts'
import { factorRows } from '../pca/symmetric-eigen.ts'

/**
 * The state of y = W x + b from that of x: mean W μ + b and scatter W S Wᵀ, so that outputs of linear layers need not be
 * collected. From an exact state the result is exact up to f32 products: as a scatter, or, where y is wider than x, as the
 * rows of a sketch that lost nothing. From a sketch of x it is one of y, whose variances lack what the sketch shed.
 * @param linear of layer `layer`, with its weight as the decoder holds it.
 */
export async function deriveOutput(
  decoder: Decoder,
  layer: number,
  linear: LinearName,
  state: AnyPcaState,
): Promise<AnyPcaState> {
  const k = state.mean.length
  const rows = isSketch(state) ? state.rows : factorRows(state.scatter, k)
  const count = rows.length / k
  // Rows of very unlike sizes pass through f32: each is scaled to its own length and back.
  const lengths = Float64Array.from({ length: count }, (_, r) => norm(rows, r * k, k) || 1)
  // Zeros behind them: what is read back depends on sizes alone, not on how many directions the samples fill.
  const most = isSketch(state) ? 2 * state.size : k
  const input = new Float32Array((most + 1) * k)
  for (let r = 0; r < count; r++) for (let c = 0; c < k; c++) input[r * k + c] = rows[r * k + c] / lengths[r]
  const meanLength = norm(state.mean, 0, k) || 1
  for (let c = 0; c < k; c++) input[most * k + c] = state.mean[c] / meanLength
  using step = decoder.gpu.step({ label: 'derive' })
  const product = decoder.product(step, layer, linear, step.upload('f32', [most + 1, k], input))
  const n = product.shape[1]
  const y = await step.read(product)
  const bias = decoder.parameters.get(`model.layers.${layer}.${linear}.bias`)
  const offset = bias ? await step.read(bias) : new Float32Array(n)
  const mean = Float64Array.from({ length: n }, (_, i) => y[most * n + i] * meanLength + offset[i])
  const turned = new Float64Array(count * n)
  for (let r = 0; r < count; r++) for (let c = 0; c < n; c++) turned[r * n + c] = y[r * n + c] * lengths[r]
  if (!isSketch(state) && n <= k) return { count: state.count, mean, scatter: gram(turned, count, n) }
  const diagonal = new Float64Array(n)
  for (let r = 0; r < count; r++) for (let c = 0; c < n; c++) diagonal[c] += turned[r * n + c] ** 2
  const [size, shed] = isSketch(state) ? [state.size, state.shed] : [Math.max(1, count), 0]
  return { count: state.count, mean, size, rows: turned, diagonal, shed }
}

function norm(values: Float64Array, begin: number, size: number): number {
  let sum = 0
  for (let i = begin; i < begin + size; i++) sum += values[i] * values[i]
  return Math.sqrt(sum)
}

/** rowsᵀ · rows, (n, n). */
function gram(rows: Float64Array, count: number, n: number): Float64Array {
  const result = new Float64Array(n * n)
  let r = 0
  // Four rows at a time: one walk through the result for all of them.
  for (; r + 4 <= count; r += 4) {
    const [r0, r1, r2, r3] = [r * n, (r + 1) * n, (r + 2) * n, (r + 3) * n]
    for (let i = 0, at = 0; i < n; i++, at = i * n) {
      const [v0, v1, v2, v3] = [rows[r0 + i], rows[r1 + i], rows[r2 + i], rows[r3 + i]]
      for (let j = 0; j <= i; j++)
        result[at + j] = result[at + j] + v0 * rows[r0 + j] + v1 * rows[r1 + j] + v2 * rows[r2 + j] + v3 * rows[r3 + j]
    }
  }
  for (; r < count; r++)
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) result[i * n + j] += rows[r * n + i] * rows[r * n + j]
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) result[j * n + i] = result[i * n + j]
  return result
}
