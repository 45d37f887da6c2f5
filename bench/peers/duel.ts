// Times us and a peer by turns, A B B A, and only after both results passed the f64 check.

import type { Array64 } from '../../tests/reference/array64.ts'
import { errorOf } from '../error.ts'
import type { Timing } from '../timing.ts'

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

/** 24 runs of each side; 16 or 8 where so many would take too long, 4 where even 8 would. */
export const fullPace: Pace = { rounds: 3, runs: 4, mostFlops: Number.POSITIVE_INFINITY }
/** 4 runs of each side, and nothing as large as 1024³. */
export const quickPace: Pace = { rounds: 1, runs: 2, mostFlops: 1e9 }
/** ms that a duel may take after its warm-up, but for the least pace. */
const longest = 5000

/** The error of a side's result, and whether it passes. */
export async function check(side: Pick<Side, 'read'>, want: Array64, tolerance: number) {
  const error = errorOf(await side.read(), want)
  return { error, right: error <= tolerance }
}

/** Times in ms of both sides, whose results were checked, by turns after a warm-up. */
export async function duel(a: Side, b: Side, pace: Pace): Promise<{ ours: number[]; theirs: number[] }> {
  const ours: number[] = []
  const theirs: number[] = []
  // The first run of a side compiles; the second says how long the others take.
  const [, mine] = await a.time(2)
  const [, other] = await b.time(2)
  const affordable = Math.floor(longest / (2 * pace.runs * (mine + other)))
  const { rounds, runs } = affordable === 0 ? quickPace : { ...pace, rounds: Math.min(pace.rounds, affordable) }
  for (let round = 0; round < rounds; round++) {
    ours.push(...(await a.time(runs)))
    theirs.push(...(await b.time(runs)))
    theirs.push(...(await b.time(runs)))
    ours.push(...(await a.time(runs)))
  }
  return { ours, theirs }
}
