/** One report of a long piece of work. Whoever works emits these; whoever shows them decides how. */
export interface Progress {
  /** What is being done, in words for a person: `distil joint`. */
  readonly task: string
  /** How many units are done. */
  readonly done: number
  /** How many units there are in all. */
  readonly total: number
  /** What one unit is: `steps`, `items`, `bytes`. */
  readonly unit: string
  /** Figures worth watching, already rounded for reading: `{ loss: '0.412' }`. */
  readonly figures?: Readonly<Record<string, string>>
}

/** Receives progress reports. */
export type OnProgress = (progress: Progress) => void

/** A receiver that shows nothing. */
export const silent: OnProgress = () => {}

/** A report in MB: rounded for reading, and complete when all bytes are there and not before. */
export function byteProgress(task: string, bytes: number, totalBytes: number): Progress {
  const total = Math.ceil(totalBytes / 1e5) / 10
  return {
    task,
    unit: 'MB',
    done: bytes >= totalBytes ? total : Math.floor((bytes / totalBytes) * (total * 10 - 1)) / 10,
    total,
  }
}
