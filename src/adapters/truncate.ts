import { EigenvalueDecomposition, Matrix } from 'ml-matrix'
import type { DecoderConfig } from '../formats/model-config.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { Gpu } from '../runtime/gpu.ts'
import { Adapter } from './adapter.ts'

/**
 * An adapter cut to a share of its ranks, each update to its largest singular values: the best of that rank.
 * @param share 0 to 1.
 * @returns the cut adapter, none where nothing is left of it, and the mean rank of its updates.
 */
export async function truncateAdapter(
  gpu: Gpu,
  adapter: Adapter,
  config: DecoderConfig,
  share: number,
): Promise<{ adapter: Adapter | undefined; meanRank: number }> {
  const cut = new Map<string, CpuTensor>()
  const tensors = await adapter.toTensors('F32')
  let [ranks, pairs] = [0, 0]
  for (const [name, a] of tensors) {
    if (!name.endsWith('lora_A.weight')) continue
    const other = name.replace('lora_A', 'lora_B')
    const b = tensors.get(other)!
    const [rank, k] = a.shape
    const keep = Math.round(share * rank)
    pairs++
    ranks += keep
    if (keep === 0) continue
    const best = largest(toFloat32(a), toFloat32(b), rank, keep)
    // Kernels run along fours: rows of zeros change no product.
    const padded = Math.ceil(keep / 4) * 4
    const rows = new Float32Array(padded * k)
    rows.set(best.a)
    const n = b.shape[0]
    const columns = Float32Array.from({ length: n * padded }, (_, i) => {
      const [row, column] = [Math.floor(i / padded), i % padded]
      return column < keep ? best.b[row * keep + column] : 0
    })
    cut.set(name, cpuTensor('F32', [padded, k], rows))
    cut.set(other, cpuTensor('F32', [n, padded], columns))
  }
  const left = cut.size > 0 ? Adapter.load(gpu, adapter.name, config, cut) : undefined
  return { adapter: left, meanRank: ranks / Math.max(1, pairs) }
}

/**
 * The best approximation of B · A of rank `keep`, as a product again.
 * @param a (rank, K).
 * @param b (N, rank).
 * @returns a (keep, K), with the singular values; b (N, keep).
 * @see Eckart and Young, The approximation of one matrix by another of lower rank, 1936.
 */
export function largest(
  a: Float32Array,
  b: Float32Array,
  rank: number,
  keep: number,
): { a: Float32Array; b: Float32Array } {
  const low = Matrix.from1DArray(rank, a.length / rank, Array.from(a))
  const high = Matrix.from1DArray(b.length / rank, rank, Array.from(b))
  // B = U · root with orthonormal U; then B · A = U · (root · A), and the small product has the singular values of all.
  const outer = new EigenvalueDecomposition(high.transpose().mmul(high), { assumeSymmetric: true })
  const roots = outer.realEigenvalues.map((value) => Math.sqrt(Math.max(0, value)))
  const floor = 1e-7 * Math.max(...roots, 1e-30)
  const vectors = outer.eigenvectorMatrix
  const small = Matrix.diag(roots).mmul(vectors.transpose()).mmul(low)
  const inner = new EigenvalueDecomposition(small.mmul(small.transpose()), { assumeSymmetric: true })
  const order = inner.realEigenvalues
    .map((value, i) => ({ value, i }))
    .sort((x, y) => y.value - x.value)
    .slice(0, keep)
    .map(({ i }) => i)
  const chosen = inner.eigenvectorMatrix.subMatrixColumn(order)
  const orthonormal = high.mmul(vectors).mmul(Matrix.diag(roots.map((root) => (root > floor ? 1 / root : 0))))
  return {
    a: Float32Array.from(chosen.transpose().mmul(small).to1DArray()),
    b: Float32Array.from(orthonormal.mmul(chosen).to1DArray()),
  }
}
