import type { ControlScore, GateReport } from './gate.ts'

/** Percentage points with their sign: `+1.25`. */
export function points(value: number): string {
  const text = Math.abs(100 * value).toFixed(2)
  return `${value < 0 && Number(text) > 0 ? '−' : '+'}${text}`
}

/** What the paired interval of a control says. */
export function verdictOf({ lower, upper }: Pick<ControlScore, 'lower' | 'upper'>): string {
  return lower > 0 ? 'the student is better' : upper < 0 ? 'the control is better' : 'not told apart'
}

/** `+1.25 points (+0.40 to +2.10)` */
export function gainOf({ gain, lower, upper }: Pick<ControlScore, 'gain' | 'lower' | 'upper'>): string {
  return `${points(gain)} points (${points(lower)} to ${points(upper)})`
}

/** A line for each control: what the student is ahead of it by, for each capability. */
export function controlLines({ controls = {} }: Pick<GateReport, 'controls'>): string[] {
  return Object.entries(controls).map(
    ([control, scores]) =>
      `Over ${control}: ${Object.entries(scores!)
        .map(([name, score]) => `${name} ${gainOf(score)}`)
        .join(', ')}`,
  )
}

/**
 * What anchors brought, in a sentence or two: anchors on less anchors off, at equal budget, on the same items.
 * @returns none where the run had no student without anchors.
 */
export function anchorsSay({ controls }: Pick<GateReport, 'controls'>): string | undefined {
  const off = Object.entries(controls?.['no-anchors'] ?? {})
  if (off.length === 0) return undefined
  const better = off.filter(([, { lower }]) => lower > 0).map(([name]) => name)
  const worse = off.filter(([, { upper }]) => upper < 0).map(([name]) => name)
  const open = off.filter(([, { lower, upper }]) => lower <= 0 && upper >= 0).map(([name]) => name)
  const parts = [
    ...(better.length > 0 ? [`better on ${better.join(' and ')}`] : []),
    ...(worse.length > 0 ? [`worse on ${worse.join(' and ')}`] : []),
    ...(open.length > 0 ? [`not told apart from anchors off on ${open.join(' and ')}`] : []),
  ]
  const gains = off.map(([name, score]) => `${name} ${gainOf(score)}`).join(', ')
  return `Anchors on are ${parts.join(', ')}. On − off, at equal budget: ${gains}.`
}
