import { grid } from '../runtime/entry.ts'
import type { Gpu } from '../runtime/gpu.ts'

/**
 * Which form of a kernel of parts (wgsl/lib/part.wgsl) fits: quads where `size` is a multiple of four.
 * @param size elements of what must not be split: of the tensor for a map, of a row for work on rows.
 * @returns the kernel's entry points, and the elements of a part.
 */
export function inParts<S, Q>(single: S, quads: Q, size: number): { wgsl: S | Q; width: 1 | 4 } {
  return size % 4 === 0 ? { wgsl: quads, width: 4 } : { wgsl: single, width: 1 }
}

/** The dispatch of a map over `size` parts. On a GPU in software an invocation of a large map takes four parts. */
export function mapDispatch(gpu: Gpu, size: number, flops: number) {
  const each = gpu.software && size >= 16_384 ? 4 : 1
  return { workgroups: grid(Math.ceil(size / (256 * each))), flops, constants: { each } }
}

/** Rows from which on a GPU in software gives each invocation a row of its own, and from which on 64 a workgroup. */
const [manyRows, wholeGroups] = [64, 1024]
/** Parts of the longest such row, so that an f32 sum stays good to 2e-6 without being folded. */
const mostParts = 1024

/** Turns of its loops that an invocation may take: lavapipe ends them all, silently, after 65,535 in all. */
const mostTurns = 60_000

/**
 * The dispatch of work on `rows` rows of `parts` parts. A GPU has one workgroup a row, for coalesced reads. One in software
 * pays for every barrier and every lane: many rows get an invocation each, few or long ones a subgroup each.
 * @param walks how often an invocation walks its row.
 */
export function rowDispatch(gpu: Gpu, rows: number, parts: number, flops: number, walks = 4) {
  const { software, capabilities } = gpu
  const subgroup = Math.min(capabilities.subgroupSize, 16)
  const alone = software && rows >= manyRows && parts <= mostParts && walks * parts <= mostTurns
  // Otherwise a whole workgroup shares a row.
  const fits = software ? (size: number) => walks * parts <= mostTurns * size : () => parts <= 256
  const shared = (software ? [subgroup, 64] : [64]).find(fits) ?? 256
  const group_size = alone ? (rows >= wholeGroups ? 64 : subgroup) : shared
  const lanes = alone ? 1 : shared
  return { workgroups: grid(Math.ceil((rows * lanes) / group_size)), flops, constants: { lanes, group_size } }
}
