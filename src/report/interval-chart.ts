import { frame } from './line-chart.ts'
import { type Axis, scaleOf, shortNumber } from './scale.ts'
import { type ChartText, element, escapeText, figure, label, seriesClass } from './svg.ts'

/** A measured value and the ends of its interval. */
export interface Interval {
  readonly value: number
  readonly lower: number
  readonly upper: number
}

/** What {@link intervalChart} draws. */
export interface IntervalChart extends ChartText {
  /** Names along the axis. */
  readonly categories: readonly string[]
  /** An interval a category. */
  readonly intervals: readonly Interval[]
  readonly x: Pick<Axis, 'label'>
  readonly y: Pick<Axis, 'label'>
  readonly width?: number
  readonly height?: number
}

const cap = 7

/** Points with their intervals beside a line at zero: those that cross it say nothing, and are drawn in grey. */
export function intervalChart(chart: IntervalChart): string {
  const { categories, intervals, width = 560, height = 280 } = chart
  const y = scaleOf(chart.y, [0, ...intervals.flatMap(({ lower, upper }) => [lower, upper])])
  const { px, py, inner, markup } = frame(chart, { y }, width, height)
  const group = inner.width / categories.length
  const zero = py(y.at(0))
  const marks = intervals.map(({ value, lower, upper }, i) => {
    const at = px(0) + group * (i + 0.5)
    const [top, bottom] = [py(y.at(upper)), py(y.at(lower))]
    const colour = seriesClass(lower > 0 || upper < 0 ? 0 : 5)
    const line = (x1: number, x2: number, y1: number, y2: number) =>
      element('line', { x1, x2, y1, y2, class: `line stroke-${colour}` })
    const text = `${categories[i]}: ${shortNumber(value)}, ${shortNumber(lower)} to ${shortNumber(upper)}`
    return (
      line(at, at, top, bottom) +
      line(at - cap, at + cap, top, top) +
      line(at - cap, at + cap, bottom, bottom) +
      element(
        'circle',
        { cx: at, cy: py(y.at(value)), r: 4.5, class: `fill-${colour} dot` },
        element('title', {}, escapeText(text)),
      )
    )
  })
  const axis = element('line', { x1: px(0), x2: px(1), y1: zero, y2: zero, class: 'axis' })
  const names = categories.map((name, i) =>
    label(name, px(0) + group * (i + 0.5), py(0) + 17, { class: 'tick', 'text-anchor': 'middle' }),
  )
  return figure(chart, width, height, markup, axis, ...marks, ...names)
}
