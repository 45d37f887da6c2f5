import { MultiBar, Presets, type SingleBar } from 'cli-progress'
import type { OnProgress, Progress } from '../core/progress.ts'

/** How a command talks: tables and sentences for a person, or one JSON object a line for a machine. */
export interface Output {
  readonly json: boolean
  /** A sentence about what happens, for a person only; on stderr. */
  say(line: string): void
  /** The result, for a person only; on stdout. */
  print(text: string): void
  /** The result, for a machine only; on stdout. */
  emit(event: string, data: object): void
  readonly onProgress: OnProgress
  /** Ends the progress display. */
  close(): void
}

const secondsBetweenLines = 5

/** @param json whether one JSON object a line is wanted. */
export function makeOutput(json: boolean): Output {
  const emit = (event: string, data: object) => process.stdout.write(`${JSON.stringify({ event, ...data })}\n`)
  if (json)
    return {
      json,
      say: () => {},
      print: () => {},
      emit,
      onProgress: throttled((progress) => emit('progress', progress)),
      close: () => {},
    }
  const view = process.stderr.isTTY ? barView() : lineView()
  return {
    json,
    say: (line) => process.stderr.write(`${line}\n`),
    print: (text) => process.stdout.write(`${text}\n`),
    emit: () => {},
    ...view,
  }
}

type View = Pick<Output, 'onProgress' | 'close'>

/** One bar for the running task: what, how far, rate, time left. A finished task leaves its bar standing. */
function barView(): View {
  let bars: MultiBar | undefined
  let bar: SingleBar | undefined
  let task: string | undefined
  let first: First = { done: 0, time: 0 }
  const close = () => {
    bars?.stop()
    bars = undefined
    bar = undefined
    task = undefined
  }
  const onProgress = (progress: Progress) => {
    if (progress.task !== task) {
      close()
      first = { done: progress.done, time: performance.now() }
      task = progress.task
      bars = new MultiBar(
        {
          format: '{task} {bar} {percentage} %  {value}/{total} {unit}  {rate}  {left}  {figures}',
          hideCursor: true,
          barsize: 24,
        },
        Presets.shades_classic,
      )
      bar = bars.create(progress.total, 0)
    }
    bar?.update(progress.done, { ...describe(progress, first), task: progress.task.padEnd(22), unit: progress.unit })
    if (progress.done >= progress.total) close()
  }
  return { onProgress, close }
}

/** A line every few seconds and one at the end of each task, for logs. */
function lineView(): View {
  let task: string | undefined
  let first: First = { done: 0, time: 0 }
  const show = throttled((progress) => {
    const { rate, left, figures } = describe(progress, first)
    const parts = [`${progress.task}: ${progress.done} of ${progress.total} ${progress.unit}`, rate, left, figures]
    process.stderr.write(`${parts.filter(Boolean).join(', ')}\n`)
  })
  return {
    onProgress(progress) {
      if (progress.task !== task) {
        task = progress.task
        first = { done: progress.done, time: performance.now() }
      }
      show(progress)
    },
    close: () => {},
  }
}

/** The first report of a task: what was done by then, in a run that went on perhaps long ago, says nothing of the rate. */
interface First {
  readonly done: number
  readonly time: number
}

function describe({ done, total, unit, figures }: Progress, first: First) {
  const seconds = (performance.now() - first.time) / 1000
  const rate = (done - first.done) / Math.max(seconds, 1e-3)
  const known = seconds > 0.5 && done > first.done
  return {
    rate: known ? `${rate >= 10 ? rate.toFixed(0) : rate.toFixed(2)} ${unit}/s` : '',
    left: done >= total ? `${duration(seconds)} in all` : known ? `${duration((total - done) / rate)} left` : '',
    figures: Object.entries(figures ?? {})
      .map(([name, value]) => `${name} ${value}`)
      .join('  '),
  }
}

/** `42 s`, `3 min 05 s`. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)} s`
  return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, '0')} s`
}

/** Lets through the first and the last report of each task, and one every few seconds between. */
function throttled(show: OnProgress): OnProgress {
  let task: string | undefined
  let last = 0
  return (progress) => {
    const now = performance.now()
    const due = progress.task !== task || now - last > secondsBetweenLines * 1000
    if (!due && progress.done < progress.total) return
    task = progress.task
    last = now
    show(progress)
  }
}

/** Rows under a header, columns aligned; numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, c) => Math.max(title.length, ...rows.map((row) => row[c].length)))
  const numeric = header.map((_, c) => rows.every((row) => /^[-\d]/.test(row[c])))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => (numeric[c] ? cell.padStart(widths[c]) : cell.padEnd(widths[c])))
      .join('  ')
      .trimEnd()
  return [line(header), widths.map((width) => '─'.repeat(width)).join('  '), ...rows.map(line)].join('\n')
}

/** `1.24 MB`, in decimal units. */
export function byteSize(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}
