// Runs every case that a peer has, by us and by each peer, and tells what came of it.
import { table } from '../../src/cli/output.ts'
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
  readonly onCase?: (done: Comparison) => void
}

/** Every case by us and by each peer. */
export async function compareWithPeers(gpu: Gpu, options: ComparisonOptions): Promise<Comparison[]> {
  const done: Comparison[] = []
  for (const item of peerCases.filter(({ name }) => name.includes(options.filter))) {
    done.push(await compareCase(gpu, item, options))
    options.onCase?.(done.at(-1)!)
  }
  return done
}

async function compareCase(
  gpu: Gpu,
  item: PeerCase,
  { rivals, pace, ceilings }: ComparisonOptions,
): Promise<Comparison> {
  const inputs = item.inputs()
  const ours = prepareOurs(gpu, item, inputs)
  try {
    const { error, right } = await check(item, inputs, ours, 'ours', ours.size)
    if (!right) return { name: item.name, error, ours: null, outcomes: {} }
    const outcomes: Record<string, Outcome> = {}
    const times: number[] = []
    for (const rival of rivals) outcomes[rival.name] = await meet(rival)
    async function meet(rival: Rival): Promise<Outcome> {
      try {
        const theirs = await rival.side(item, inputs)
        if (!theirs) return { status: 'none' }
        const checked = await check(item, inputs, theirs, 'theirs', ours.size)
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

/** The table of a comparison: a peer's column is its time over ours, so that more than 1 means that we are faster. */
export function comparisonTable(comparisons: readonly Comparison[], peers: readonly string[]): string {
  const header = ['op', 'ours ms', 'quartiles', 'rate', 'R', ...peers.map((peer) => `${peer} / ours`)]
  const rows = comparisons.map(({ name, error, ours, outcomes }) => [
    name,
    ...(ours
      ? [
          ours.median.toFixed(2),
          `${ours.quartiles[0].toFixed(2)}-${ours.quartiles[1].toFixed(2)}`,
          ours.bound === 'compute' ? `${ours.gflops.toFixed(2)} GFLOP/s` : `${ours.gbs.toFixed(2)} GB/s`,
          ours.r.toFixed(3),
        ]
      : [`wrong (error ${error.toPrecision(1)})`, '', '', '']),
    ...peers.map((peer) => cell(outcomes[peer])),
  ])
  const failures = comparisons.flatMap(({ name, outcomes }) =>
    Object.entries(outcomes).flatMap(([peer, outcome]) =>
      outcome.status === 'failed' ? [`${peer} failed at ${name}: ${outcome.reason}`] : [],
    ),
  )
  return [table(header, rows), ...failures].join('\n')
}

function cell(outcome: Outcome | undefined): string {
  if (!outcome || outcome.status === 'none') return '-'
  if (outcome.status === 'wrong') return `wrong (error ${outcome.error.toPrecision(1)})`
  if (outcome.status === 'failed') return 'failed'
  const ratio = outcome.theirs.median / outcome.ours.median
  return `${ratio.toFixed(2)} (${outcome.theirs.median.toFixed(2)} ms)`
}
