import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import { type AnyPcaState, decompose, type Pca } from '../pca/pca-state.ts'
import { estimateStateRank, type RankReport } from '../pca/rank.ts'

/** Components of a site that are kept. */
const keptComponents = 64

/** A site and what was collected of it. */
export interface SiteWork {
  readonly name: string
  readonly centred: boolean
  readonly state: AnyPcaState
}

/** Basis, mean and spectrum of a site by their names, and its ranks. */
export interface SiteResult {
  readonly tensors: readonly (readonly [string, CpuTensor])[]
  readonly rank: RankReport
}

/**
 * Decomposes a site's state and estimates its ranks. It needs nothing else, so that any thread can do it.
 * @throws RangeError with fewer than two rows.
 */
export function finishSite({ name, centred, state }: SiteWork): SiteResult {
  const pca = decompose(state, { centred, components: keptComponents })
  const rank = estimateStateRank(state, { centred, pca })
  return { tensors: tensorsOf(name, pca), rank }
}

/** Basis as f16, mean and spectrum as f32: nothing that grows with the number of tokens. */
function tensorsOf(name: string, { mean, eigenvalues, components }: Pca): SiteResult['tensors'] {
  const d = mean.length
  const kept = components.length / d
  const basis = Float64Array.from({ length: kept * d }, (_, i) => components[(i % d) * kept + Math.floor(i / d)])
  return [
    [`${name}.basis`, cpuTensor('F16', [kept, d], basis)],
    [`${name}.mean`, cpuTensor('F32', [d], mean)],
    [`${name}.eigenvalues`, cpuTensor('F32', [eigenvalues.length], eigenvalues)],
  ]
}
