import { stat } from 'node:fs/promises'
import { UsageError } from '../core/errors.ts'

/**
 * When something counts as built, ISO 8601: SOURCE_DATE_EPOCH (seconds) where the environment has it, else when the
 * last of what it is built from was written. Not the clock: building the same again gives the same bytes.
 * @param input path of the file that was written last.
 * @throws UsageError when SOURCE_DATE_EPOCH is no count of seconds.
 * @see reproducible-builds.org, SOURCE_DATE_EPOCH.
 */
export async function buildTime(input: string): Promise<string> {
  const epoch = process.env.SOURCE_DATE_EPOCH
  if (epoch === undefined) return new Date(Math.floor((await stat(input)).mtimeMs)).toISOString()
  if (!/^\d{1,11}$/.test(epoch))
    throw new UsageError(`SOURCE_DATE_EPOCH is ${JSON.stringify(epoch)}; it must be a count of seconds`)
  return new Date(1000 * Number(epoch)).toISOString()
}
