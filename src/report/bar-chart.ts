import { frame } from './line-chart.ts'
import { type Axis, scaleOf, shortNumber } from './scale.ts'
import { type ChartText, element, escapeText, figure, label, seriesClass } from './svg.ts'

/** What {@link barChart} draws. */
export interface BarChart extends ChartText {
  /** Names along the axis. */
  readonly categories: readonly string[]
  /** A bar a category each; null leaves a gap. */
  readonly series: readonly {
    readonly name: string
    readonly values: readonly (number | null)[]
    readonly colour?: number
  }[]
  readonly x: Pick<Axis, 'label'>
  readonly y: Pick<Axis, 'label' | 'to'>
  readonly width?: number
  readonly height?: number
}

const mostLabels = 20

/** Bars from zero, one group for each category. */
export function barChart(chart: BarChart): string {
  const { categories, series, width = 560, height = 280 } = chart
  const values = series.flatMap((one) => one.values.filter((value) => value !== null))
  const y = scaleOf({ from: Math.min(0, ...values), ...chart.y }, [0, ...values])
  const { px, py, inner, markup } = frame(chart, { y }, width, height, series)
  const group = inner.width / categories.length
  const thick = Math.max(1, Math.min(26, (group * 0.78) / series.length))
  const zero = py(y.at(0))
  const bars = series.flatMap((one, s) =>
    one.values.map((value, c) => {
      if (value === null) return ''
      const end = py(y.at(value))
      const left = px(0) + group * (c + 0.5) + thick * (s - series.length / 2)
      const text = escapeText(`${one.name}, ${categories[c]}: ${shortNumber(value)}`)
      return element(
        'rect',
        {
          ...{ x: left + thick * 0.06, y: Math.min(zero, end), width: thick * 0.88 },
          ...{ height: Math.max(0.5, Math.abs(end - zero)), rx: Math.min(2, thick / 4) },
          class: `fill-${seriesClass(one.colour ?? s)}`,
        },
        element('title', {}, text),
      )
    }),
  )
  const each = Math.ceil(categories.length / mostLabels)
  const names = categories.map((name, c) =>
    c % each === 0
      ? label(name, px(0) + group * (c + 0.5), py(0) + 17, { class: 'tick', 'text-anchor': 'middle' })
      : '',
  )
  return figure(chart, width, height, markup, ...bars, ...names)
}
