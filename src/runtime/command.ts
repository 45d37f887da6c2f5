import type { Entry } from './entry.ts'
import type { Pipeline } from './pipelines.ts'

/** One recorded dispatch. */
export interface Command {
  readonly entry: Entry
  readonly pipeline: Pipeline
  readonly bindGroup: GPUBindGroup
  /** Where its parameters begin in the arena; absent when the entry point has none. */
  readonly offset?: number
  readonly workgroups: readonly number[]
  readonly flops: number
  readonly bytes: number
}

/** Records one command into an open pass. */
export function encode(pass: GPUComputePassEncoder, command: Command): void {
  pass.setPipeline(command.pipeline.pipeline)
  if (command.offset === undefined) pass.setBindGroup(0, command.bindGroup)
  else pass.setBindGroup(0, command.bindGroup, [command.offset])
  const [x, y = 1, z = 1] = command.workgroups
  pass.dispatchWorkgroups(x, y, z)
}
