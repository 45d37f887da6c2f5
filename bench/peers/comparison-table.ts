import { table } from '../../src/cli/output.ts'
import type { Comparison } from './comparison.ts'
import type { Outcome } from './duel.ts'

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
