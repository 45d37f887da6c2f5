import type { Inputs, PeerCase } from './cases.ts'

/** A case made ready on one contender's GPU. */
export interface Prepared {
  /** Runs the op once and resolves when the GPU is done, without downloading the result. */
  run(): Promise<void>
  /** The result of a run, row-major. */
  read(): Promise<ArrayLike<number>>
  /** Gives the memory back. */
  free(): void
}

/** Another library that runs the same ops, or ours. */
export interface Peer {
  readonly version: string
  /** The case on this peer's GPU; nothing where it has no such op. */
  prepare(item: PeerCase, inputs: Inputs): Promise<Prepared | undefined>
}

/** Times `count` runs one after the other, in ms. */
export async function timeRuns({ run }: Pick<Prepared, 'run'>, count: number): Promise<number[]> {
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    await run()
    times.push(performance.now() - began)
  }
  return times
}
