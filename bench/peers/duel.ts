// Times us and a peer by turns, A B B A, and only after both results passed the f64 check.
import type { Timing } from '../timing.ts'
import type { Inputs, PeerCase } from './cases.ts'
import { errorOf } from './check.ts'

/** One side: the case is ready on its GPU. */
export interface Side {
  read(): Promise<ArrayLike<number>>
  /** Times of `count` runs one after the other, in ms. */
  time(count: number): Promise<number[]>
}

/** What came of a peer's case. */
export type Outcome =
  | { readonly status: 'timed'; readonly error: number; readonly theirs: Timing; readonly ours: Timing }
  | { readonly status: 'wrong'; readonly error: number }
  | { readonly status: 'failed'; readonly reason: string }
  | { readonly status: 'none' }

/** How often a side runs. */
export interface Pace {
  /** Rounds of A B B A. */
  readonly rounds: number
  /** Runs in a turn. */
  readonly runs: number
  /** Cases of more operations are left out. */
  readonly mostFlops: number
}

/** 24 runs of each side. */
export const fullPace: Pace = { rounds: 3, runs: 4, mostFlops: Number.POSITIVE_INFINITY }
/** 4 runs of each side, and nothing as large as 1024³. */
export const quickPace: Pace = { rounds: 1, runs: 2, mostFlops: 1e9 }
/** From this many ms a run on, 4 runs of each side must do. */
const slow = 2000

/** The error of a side's result, and whether it passes. A peer with its own number format has its own reference. */
export async function check(item: PeerCase, inputs: Inputs, side: Side, whose: 'ours' | 'theirs', size: number) {
  const reference = (whose === 'theirs' && item.theirReference) || item.reference
  const error = errorOf(await side.read(), reference(inputs), size)
  return { error, right: error <= item.tolerance }
}

/** Times in ms of both sides, whose results were checked, by turns after a warm-up. */
export async function duel(a: Side, b: Side, pace: Pace): Promise<{ ours: number[]; theirs: number[] }> {
  const ours: number[] = []
  const theirs: number[] = []
  const warm = [...(await a.time(2)), ...(await b.time(2))]
  const { rounds, runs } = Math.max(...warm) > slow ? quickPace : pace
  for (let round = 0; round < rounds; round++) {
    ours.push(...(await a.time(runs)))
    theirs.push(...(await b.time(runs)))
    theirs.push(...(await b.time(runs)))
    ours.push(...(await a.time(runs)))
  }
  return { ours, theirs }
}
