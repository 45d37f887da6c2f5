import { type Axis, type Scale, scaleOf, shortNumber } from './scale.ts'
import { type ChartText, element, escapeText, figure, label, legend, seriesClass } from './svg.ts'

/** A line: its name and its points. */
export interface LineSeries {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
  /** Class of its colour, that of its place unless told: series of several charts may mean the same. */
  readonly colour?: number
}

/** What {@link lineChart} draws. */
export interface LineChart extends ChartText {
  readonly series: readonly LineSeries[]
  readonly x: Axis
  readonly y: Axis
  readonly width?: number
  readonly height?: number
  /** Dots on the points; where there are few, unless told. */
  readonly dots?: boolean
}

const baseMargin = { top: 34, right: 16, bottom: 44, left: 58 }

/** The frame of a chart with two axes: grid, numbers and names; and where its inside lies. */
export function frame(
  { x, y }: { readonly x: Axis; readonly y: Axis },
  scales: { readonly x?: Scale; readonly y: Scale },
  width: number,
  height: number,
  series: readonly { readonly name: string; readonly colour?: number }[] = [],
) {
  const names = legend(series, { x: baseMargin.left, y: 18, width: width - baseMargin.left - baseMargin.right })
  const margin = { ...baseMargin, top: baseMargin.top + names.height }
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom }
  const px = (place: number) => margin.left + place * inner.width
  const py = (place: number) => margin.top + (1 - place) * inner.height
  const rows = scales.y.ticks.map((tick) => {
    const at = py(scales.y.at(tick))
    return (
      element('line', { x1: px(0), x2: px(1), y1: at, y2: at, class: 'grid' }) +
      label(shortNumber(tick), px(0) - 8, at + 4, { class: 'tick', 'text-anchor': 'end' })
    )
  })
  const columns = (scales.x?.ticks ?? []).map((tick) => {
    const at = px(scales.x!.at(tick))
    return (
      element('line', { x1: at, x2: at, y1: py(0), y2: py(0) + 4, class: 'axis' }) +
      label(shortNumber(tick), at, py(0) + 17, { class: 'tick', 'text-anchor': 'middle' })
    )
  })
  const base = element('line', { x1: px(0), x2: px(1), y1: py(0), y2: py(0), class: 'axis' })
  const middle = margin.top + inner.height / 2
  const titles =
    label(x.label, px(0.5), height - 8, { class: 'name', 'text-anchor': 'middle' }) +
    label(y.label, 13, middle, { class: 'name', 'text-anchor': 'middle', transform: `rotate(-90 13 ${middle})` })
  return { px, py, inner, markup: rows.join('') + columns.join('') + base + titles + names.markup }
}

/** Lines over two axes, linear or logarithmic. */
export function lineChart(chart: LineChart): string {
  const { series, width = 560, height = 320 } = chart
  const visible = ([x, y]: readonly [number, number]) =>
    Number.isFinite(x) && Number.isFinite(y) && (chart.x.scale !== 'log' || x > 0) && (chart.y.scale !== 'log' || y > 0)
  const points = series.flatMap((line) => line.points.filter(visible))
  const x = scaleOf(
    chart.x,
    points.map(([value]) => value),
  )
  const y = scaleOf(
    chart.y,
    points.map(([, value]) => value),
  )
  const { px, py, markup } = frame(chart, { x, y }, width, height, series)
  const place = ([a, b]: readonly [number, number]) => [px(x.at(a)), py(y.at(b))] as const
  const lines = series.map((line, i) => {
    const colour = seriesClass(line.colour ?? i)
    const own = line.points.filter(visible)
    const path = own
      .map(place)
      .map(([a, b], at) => `${at === 0 ? 'M' : 'L'}${a.toFixed(1)} ${b.toFixed(1)}`)
      .join('')
    const dots =
      (chart.dots ?? own.length <= 40)
        ? own.map((point) => {
            const [cx, cy] = place(point)
            const text = escapeText(`${line.name}: ${shortNumber(point[0])}, ${shortNumber(point[1])}`)
            return element('circle', { cx, cy, r: 3, class: `fill-${colour} dot` }, element('title', {}, text))
          })
        : []
    const title = element('title', {}, escapeText(line.name))
    return element('path', { d: path, class: `line stroke-${colour}` }, title) + dots.join('')
  })
  return figure(chart, width, height, markup, ...lines)
}
