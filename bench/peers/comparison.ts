// Runs every case that a peer has, by us and by each peer, and tells what came of it.
import type { Gpu } from '../../src/runtime/gpu.ts'
import { type Ceilings, type Rates, ratesOf } from '../ceilings.ts'
import { type Timing, timingOf } from '../timing.ts'
import { type Inputs, type PeerCase, peerCases } from './cases.ts'
import { check, duel, type Outcome, type Pace, type Side } from './duel.ts'
import { prepareOurs } from './ours.ts'

/** A peer as the comparison sees it: in a process of its own, or in this page. */
export interface Rival {
  readonly name: string
  /** The case ready on the peer's GPU; nothing where it has no such op. */
  side(item: PeerCase, inputs: Inputs): Promise<Side | undefined>
}

/** One case. */
export interface Comparison {
  readonly name: string
  /** Our largest error, relative. */
  readonly error: number
  /** Our times beside all peers together; null where our result is wrong. */
  readonly ours: (Timing & Rates) | null
  readonly outcomes: Readonly<Record<string, Outcome>>
}

/** How a comparison runs. */
export interface ComparisonOptions {
  readonly rivals: readonly Rival[]
  readonly pace: Pace
  /** Text that the name of a case contains. */
  readonly filter: string
  readonly ceilings: Ceilings
  /** Is told of every case that is done. */
  readonly onCase?: (done: Comparison) => void
}

/** Every case by us and by each peer. */
export async function compareWithPeers(gpu: Gpu, options: ComparisonOptions): Promise<Comparison[]> {
  const done: Comparison[] = []
  for (const item of peerCases.filter(({ name }) => name.includes(options.filter))) {
    const comparison = await compareCase(gpu, item, options)
    if (!comparison) continue
    done.push(comparison)
    options.onCase?.(comparison)
  }
  return done
}

async function compareCase(
  gpu: Gpu,
  item: PeerCase,
  { rivals, pace, ceilings }: ComparisonOptions,
): Promise<Comparison | undefined> {
  const inputs = item.inputs()
  const ours = prepareOurs(gpu, item, inputs)
  try {
    if (ours.cost.flops > pace.mostFlops) return undefined
    const want = item.reference(inputs)
    const { error, right } = await check(ours, want, item.tolerance)
    if (!right) return { name: item.name, error, ours: null, outcomes: {} }
    const outcomes: Record<string, Outcome> = {}
    const times: number[] = []
    for (const rival of rivals) outcomes[rival.name] = await meet(rival)
    async function meet(rival: Rival): Promise<Outcome> {
      try {
        const theirs = await rival.side(item, inputs)
        if (!theirs) return { status: 'none' }
        const checked = await check(theirs, item.theirReference?.(inputs) ?? want, item.tolerance)
        if (!checked.right) return { status: 'wrong', error: checked.error }
        const samples = await duel(ours, theirs, pace)
        times.push(...samples.ours)
        return {
          status: 'timed',
          error: checked.error,
          ours: timingOf(samples.ours),
          theirs: timingOf(samples.theirs),
        }
      } catch (fault) {
        return { status: 'failed', reason: (fault as Error).message }
      }
    }
    if (times.length === 0) {
      await ours.time(2)
      times.push(...(await ours.time(2 * pace.rounds * pace.runs)))
    }
    const timing = timingOf(times)
    return { name: item.name, error, ours: { ...timing, ...ratesOf(ours.cost, timing.median, ceilings) }, outcomes }
  } finally {
    ours.free()
  }
}

/** One case in a line, for progress. */
export function caseLine({ name, ours, outcomes }: Comparison): string {
  const theirs = Object.entries(outcomes).map(
    ([peer, outcome]) =>
      `, ${peer} ${outcome.status === 'timed' ? `${outcome.theirs.median.toFixed(2)} ms` : outcome.status}`,
  )
  return `${name}: ours ${ours ? `${ours.median.toFixed(2)} ms` : 'wrong'}${theirs.join('')}`
}
