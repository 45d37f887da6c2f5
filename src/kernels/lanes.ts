import type { Gpu } from '../runtime/gpu.ts'

/**
 * How many lanes lend each other rows, the rows of a tile, and the lanes of a workgroup, for a product of `m` rows: the
 * constants of wgsl/lib/lanes.wgsl. A GPU in software has no use for more lanes than a subgroup.
 */
export function lanesFor({ capabilities, software }: Gpu, m: number): { lent: number; rows: number; across: number } {
  const lent = capabilities.subgroupSize >= 8 ? 8 : 4
  const rows = [lent, 2 * lent].find((size) => m <= size) ?? 4 * lent
  return { lent, rows, across: software ? 8 : 64 }
}
