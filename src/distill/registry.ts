import { parse } from 'csv-parse/sync'
import { z } from 'zod'
import { messageOf } from '../core/errors.ts'

const row = z.object({
  ModelName: z.string().min(1),
  Parameters: z.string().regex(/^\d+(\.\d+)?[KMB]?$/, 'must be a number, with K, M or B after it'),
  Category: z.string().min(1),
  BestFeature: z.string().min(1),
})

/** A teacher that may be distilled. */
export interface TeacherEntry {
  readonly name: string
  /** Number of parameters. */
  readonly parameters: number
  readonly category: string
  readonly bestFeature: string
}

const unit = { K: 1e3, M: 1e6, B: 1e9 }

/**
 * Stage 1: reads the registry of teachers, a CSV with the columns ModelName, Parameters, Category, BestFeature.
 * @throws SyntaxError with the line, when a field is missing or wrong or a name appears twice.
 */
export function parseRegistry(csv: string): TeacherEntry[] {
  let rows: { record: unknown; info: { lines: number } }[]
  try {
    rows = parse(csv, { columns: true, info: true, trim: true, skip_empty_lines: true, bom: true })
  } catch (error) {
    throw new SyntaxError(`Cannot read the teacher registry: ${messageOf(error)}`)
  }
  if (rows.length === 0) throw new SyntaxError('Cannot read the teacher registry: it names no teacher')
  const names = new Set<string>()
  return rows.map(({ record, info }) => {
    const result = row.safeParse(record)
    if (!result.success) {
      const [issue] = result.error.issues
      throw new SyntaxError(
        `Cannot read the teacher registry, line ${info.lines}: ${issue.path.join('.')} ${issue.message}`,
      )
    }
    const { ModelName: name, Parameters: size, Category: category, BestFeature: bestFeature } = result.data
    if (names.has(name))
      throw new SyntaxError(`Cannot read the teacher registry, line ${info.lines}: ${name} appears twice`)
    names.add(name)
    const letter = size.at(-1) as keyof typeof unit
    return { name, parameters: Number.parseFloat(size) * (unit[letter] ?? 1), category, bestFeature }
  })
}
