import { table } from '../src/cli/output.ts'
import type { BenchFile } from './report.ts'
import { apart, type Timing } from './timing.ts'

/** Times of a file by name: ours, ours beside the peers, and the peers'. */
function timesOf({ results, comparisons }: BenchFile): Map<string, Pick<Timing, 'median' | 'quartiles'>> {
  const times = new Map<string, Pick<Timing, 'median' | 'quartiles'>>()
  for (const { name, ms, quartiles } of results) times.set(name, { median: ms, quartiles })
  for (const { name, ours, outcomes } of comparisons) {
    if (ours) times.set(`${name}, beside peers`, ours)
    for (const [peer, outcome] of Object.entries(outcomes))
      if (outcome.status === 'timed') times.set(`${name}, ${peer}`, outcome.theirs)
  }
  return times
}

/** What is wrong in a file and was not timed, a line each. */
function faultsOf(which: string, { wrong, comparisons }: BenchFile): string[] {
  const beside = comparisons.filter(({ ours }) => ours === null)
  return [...new Set([...wrong, ...beside].map(({ name }) => `${name} is wrong in ${which}`))]
}

/**
 * A table of the times that both files have; a star marks ranges between quartiles that do not overlap. What failed its f64
 * check in either is named below it.
 * @throws RangeError when they have no name in common.
 */
export function compareFiles(a: BenchFile, b: BenchFile): string {
  const before = timesOf(a)
  const rows = [...timesOf(b)].flatMap(([name, after]) => {
    const known = before.get(name)
    if (!known) return []
    const ratio = after.median / known.median
    const mark = apart(known.quartiles, after.quartiles) ? '*' : ''
    return [[name, known.median.toFixed(3), after.median.toFixed(3), ratio.toFixed(2), mark]]
  })
  if (rows.length === 0) throw new RangeError('Cannot compare the two bench files: they have no op in common')
  const title = (file: BenchFile) => `${file.date}, ${file.host}, ${file.adapter}`
  const caution = a.adapter === b.adapter ? '' : 'The adapters differ: the ratios say nothing about the code.\n'
  const faults = [...faultsOf('a', a), ...faultsOf('b', b)].map((line) => `\n${line}`).join('')
  return (
    `a: ${title(a)}\nb: ${title(b)}\n${caution}\n` +
    `${table(['op', 'a ms', 'b ms', 'b / a', '*'], rows)}\n\n* the ranges between the quartiles do not overlap${faults}`
  )
}
