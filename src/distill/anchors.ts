import { join } from 'node:path'
import { RuleError } from '../core/errors.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import { readBytes } from '../host/files.ts'
import type { LayerPlan } from './profile.ts'
import { type NiwtRun, type NiwtSettings, paths } from './run.ts'

/** Projections of a teacher's activations that a student is anchored to. */
export interface AnchorPlan {
  /** Teacher layers that the student keeps, ascending. */
  readonly kept: readonly number[]
  /** Student layers whose output is anchored, with the teacher's activation that it should match. */
  readonly outputs: readonly { readonly layer: number; readonly teacher: string }[]
  /** The teacher activation whose relations the student's last query should match. */
  readonly query: string
}

/**
 * Which layers a student of `count` layers keeps, and what they are anchored to.
 * @param most layers that are anchored, spread evenly, the last among them; all unless told.
 */
export function planAnchors(plan: LayerPlan, layers: number, count: number, most = count): AnchorPlan {
  if (!(count >= 1 && count <= layers)) throw new RangeError(`Cannot keep ${count} of ${layers} layers`)
  if (plan.removal.length < layers - count)
    throw new RangeError(
      `Cannot keep ${count} of ${layers} layers: the profile chose ${plan.removal.length} layers to remove, ${layers - count} are needed`,
    )
  const removed = new Set(plan.removal.slice(0, layers - count))
  const kept = Array.from({ length: layers }, (_, layer) => layer).filter((layer) => !removed.has(layer))
  const anchored = Math.min(most, count)
  const outputs = Array.from({ length: anchored }, (_, i) => Math.round(((i + 1) * count) / anchored) - 1)
  return {
    kept,
    // A kept layer stands for itself and for the removed ones after it, up to the next kept one.
    outputs: outputs.map((layer) => ({ layer, teacher: `${(kept[layer + 1] ?? layers) - 1}.output` })),
    query: `${kept[kept.length - 1]}.query`,
  }
}

/** Components of the query's anchor as they are stored: relations run along fours. */
export function queryWidth({ relationRank }: Pick<NiwtSettings['capture'], 'relationRank'>): number {
  return Math.ceil(relationRank / 4) * 4
}

/**
 * Projection matrices (rank, d) of the anchors of a capability, from its profile. Outputs are whitened, so that a
 * squared difference counts every component alike; the query keeps its lengths, and has rows of zeros up to a multiple
 * of four.
 */
export async function anchorBases(
  run: Pick<NiwtRun, 'folder' | 'teacherName'>,
  capability: string,
  anchors: AnchorPlan,
  settings: NiwtSettings['capture'],
): Promise<Map<string, CpuTensor>> {
  const file = join(paths(run.folder, run.teacherName).profile(capability), 'pca.safetensors')
  const { tensors } = parseSafetensors(await readBytes(file))
  const bases = new Map<string, CpuTensor>()
  for (const name of [...anchors.outputs.map(({ teacher }) => teacher), anchors.query]) {
    const whiten = name !== anchors.query
    const basis = tensors.get(`${name}.basis`)
    const spectrum = tensors.get(`${name}.eigenvalues`)
    if (!basis || !spectrum)
      throw new SyntaxError(`Cannot anchor ${capability}: ${file} has no ${name}. Delete the profile and run again.`)
    const eigenvalues = toFloat32(spectrum)
    const d = basis.shape[1]
    const rank = Math.min(whiten ? settings.anchorRank : settings.relationRank, basis.shape[0])
    const floor = (0.02 * eigenvalues.reduce((sum, value) => sum + value, 0)) / d
    // Rows of zeros change no product, and give every capability the same width.
    const rows = whiten ? settings.anchorRank : queryWidth(settings)
    const scaled = new Float32Array(rows * d)
    scaled.set(toFloat32(basis).subarray(0, rank * d))
    if (whiten)
      for (let i = 0; i < rank * d; i++) scaled[i] /= Math.sqrt(Math.max(0, eigenvalues[Math.floor(i / d)]) + floor)
    bases.set(name, cpuTensor('F32', [rows, d], scaled))
  }
  return bases
}

/** The rule that nothing raw is stored, where it could happen. @throws RuleError */
export function refuseRaw(name: string, width: number, modelWidth: number): void {
  if (width * 2 > modelWidth)
    throw new RuleError(
      'nothing raw is stored',
      `${name} would store ${width} values a token of a model ${modelWidth} wide; keep at most half as many components`,
    )
}
