import { appendText, exists, readBytes, writeFileAtomic } from '../host/files.ts'

/** A JSONL file with a line for each step, each step once, however often the run was stopped. */
export class TrainLog {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /** Opens the log of a run that goes on at `step`: lines of that step and later, and a torn last line, are cut off. */
  static async resume(path: string, step: number): Promise<TrainLog> {
    if (exists(path)) {
      const text = new TextDecoder().decode(await readBytes(path))
      const kept = text.split('\n').filter((line) => (stepOf(line) ?? Number.POSITIVE_INFINITY) < step)
      const whole = kept.map((line) => `${line}\n`).join('')
      if (whole !== text) await writeFileAtomic(path, whole)
    }
    return new TrainLog(path)
  }

  /** Adds a line. */
  add<T extends { readonly step: number }>(record: T): Promise<void> {
    return appendText(this.path, `${JSON.stringify(record)}\n`)
  }
}

function stepOf(line: string): number | undefined {
  try {
    const { step } = JSON.parse(line) as { step?: unknown }
    return typeof step === 'number' ? step : undefined
  } catch {
    return undefined
  }
}
