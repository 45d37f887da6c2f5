import { RuleError } from '../core/errors.ts'
import { exists, readJson, sha256, writeJson } from '../host/files.ts'
import type { Row } from '../train/batch.ts'
import type { Capability } from '../train/capability.ts'

/** One row of the retention contracts: what must be kept, by which benchmark, and how much of it. */
export interface Contract {
  readonly capability: string
  readonly benchmark: string
  readonly metric: string
  /** Share of the teacher's score that the student must keep. */
  readonly retainFraction: number
}

const columns = ['capability', 'benchmark', 'metric', 'retain_fraction']

/**
 * Reads the first table of a Markdown text as retention contracts. An empty retain_fraction is 0.97.
 * @param known names of the capabilities that there are data for.
 * @throws SyntaxError with the line, when a column or a value is missing or wrong.
 */
export function parseContracts(markdown: string, known: readonly string[]): Contract[] {
  const lines = markdown.split(/\r?\n/)
  const start = lines.findIndex((line) => line.trim().startsWith('|'))
  const fault = (line: number, reason: string) =>
    new SyntaxError(`Cannot read the retention contracts, line ${line + 1}: ${reason}`)
  if (start < 0) throw fault(0, `there is no table with the columns ${columns.join(', ')}`)
  const cells = (line: string) =>
    line
      .trim()
      .replace(/^\||\|$/g, '')
      .split('|')
      .map((cell) => cell.trim())
  const header = cells(lines[start])
  const missing = columns.find((column) => !header.includes(column))
  if (missing) throw fault(start, `the column ${missing} is missing`)

  const contracts: Contract[] = []
  for (let at = start + 2; at < lines.length && lines[at].trim().startsWith('|'); at++) {
    const row = cells(lines[at])
    if (row.length !== header.length) throw fault(at, `it has ${row.length} cells, the header ${header.length}`)
    const value = (column: string) => row[header.indexOf(column)]
    for (const column of columns.slice(0, 3)) if (!value(column)) throw fault(at, `${column} is empty`)
    const capability = value('capability')
    if (!known.includes(capability))
      throw fault(at, `capability ${JSON.stringify(capability)} is unknown; known are ${known.join(', ')}`)
    if (contracts.some((other) => other.capability === capability)) throw fault(at, `${capability} has two contracts`)
    const retainFraction = value('retain_fraction') === '' ? 0.97 : Number(value('retain_fraction'))
    if (!(retainFraction > 0 && retainFraction <= 1))
      throw fault(at, `retain_fraction must be above 0 and at most 1, got ${JSON.stringify(value('retain_fraction'))}`)
    contracts.push({ capability, benchmark: value('benchmark'), metric: value('metric'), retainFraction })
  }
  if (contracts.length === 0) throw fault(start, 'the table has no rows')
  return contracts
}

/** What may not change once a run has begun. */
export interface ScopeLock {
  readonly contracts: readonly Contract[]
  /** sha256 of the held-out items of each capability. */
  readonly datasets: Readonly<Record<string, string>>
  /** sha256 of what each capability is learned from; `made` where no file holds it. */
  readonly data: Readonly<Record<string, string>>
  /** sha256 of the teacher's weights. */
  readonly teacher: string
  readonly seed: number
  /** Settings of the run. */
  readonly settings: unknown
}

/** sha256 of a capability's held-out items, and of the answers to choose from. */
export function datasetHash(capability: Capability): string {
  const plain = ({ ids, weights }: Row) => [[...Array.from(ids)], [...Array.from(weights)]]
  const choices = capability.choices?.().map(({ rows, characters, answer }) => [rows.map(plain), characters, answer])
  const items = capability.items().map(plain)
  return sha256(JSON.stringify(choices ? [items, choices] : items))
}

/**
 * Stage 0: writes the lock, or compares with the one that is there.
 * @throws RuleError when anything of the scope has changed since the run began.
 */
export async function lockScope(path: string, lock: ScopeLock): Promise<void> {
  if (!exists(path)) return writeJson(path, lock)
  const before = (await readJson(path)) as Record<string, unknown>
  for (const [key, value] of Object.entries(lock))
    if (JSON.stringify(before[key]) !== JSON.stringify(value))
      throw new RuleError(
        'scope lock',
        `${key} changed since this run began. Start over with --fresh, or undo the change.`,
      )
}
