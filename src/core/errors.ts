/** What went wrong, in a form that a command line can turn into an exit code. */
export type ExitCode = 0 | 1 | 2 | 4 | 6

/** A fault of the GPU, its driver or its memory. */
export class GpuError extends Error {
  override readonly name: string = 'GpuError'
}

/** Not enough memory or disk for what was asked; the message carries the numbers and the cure. */
export class ResourceError extends Error {
  override readonly name = 'ResourceError'
}

/** The device is gone (driver reset, unplugged, crashed). What was on it must be loaded again. */
export class DeviceLostError extends GpuError {
  override readonly name = 'DeviceLostError'
}

/** A bundle that is incomplete, altered or not what it claims to be. */
export class BundleError extends Error {
  override readonly name = 'BundleError'
}

/** A rule of NIWT was broken; the run stops and names the rule. */
export class RuleError extends Error {
  override readonly name = 'RuleError'
  readonly rule: string
  constructor(rule: string, message: string) {
    super(`Rule "${rule}" is broken: ${message}`)
    this.rule = rule
  }
}

/** The person asked to stop. What was finished stays; the next run resumes. */
export class InterruptedError extends Error {
  override readonly name = 'InterruptedError'
}

/** A server cannot be reached, or does not give what was asked for. */
export class NetworkError extends Error {
  override readonly name = 'NetworkError'
}

/** Wrong words on the command line. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The exit code that a command ends with when `error` reaches it. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof UsageError) return 2
  if (error instanceof BundleError) return 4
  if (error instanceof ResourceError) return 6
  if (error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')) return 6
  return 1
}

/** Text of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
