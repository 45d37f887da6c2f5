import { shortNumber } from './scale.ts'
import { type ChartText, element, escapeText, figure, label } from './svg.ts'

/** What {@link heatMap} draws. */
export interface HeatMap extends ChartText {
  readonly rows: readonly string[]
  readonly columns: readonly string[]
  /** By row and column; null is left open. */
  readonly values: readonly (readonly (number | null)[])[]
  /** What a row and a column are. */
  readonly rowName: string
  readonly columnName: string
  /** What the colours say. */
  readonly unit: string
  /** Colours from the least to the most; `diverging` from below zero to above, with zero in the middle. */
  readonly colours?: 'sequential' | 'diverging'
  /** Ends of the colours; those of the data unless told. */
  readonly from?: number
  readonly to?: number
  /** Numbers in the cells; where they fit, unless told. */
  readonly numbers?: boolean
  readonly width?: number
  /** Height of a row. */
  readonly cellHeight?: number
}

const gap = 1.5

/** Coloured cells with a key. */
export function heatMap(chart: HeatMap): string {
  const { rows, columns, values, rowName, colours = 'sequential', width = 560, cellHeight = 20 } = chart
  const all = values.flat().filter((value) => value !== null)
  const largest = Math.max(...all.map(Math.abs), 1e-12)
  const low = chart.from ?? (colours === 'diverging' ? -largest : Math.min(...all, Number.POSITIVE_INFINITY))
  const high = chart.to ?? (colours === 'diverging' ? largest : Math.max(...all, Number.NEGATIVE_INFINITY))
  const place = (value: number) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5)
  const left = 18 + 6.4 * Math.max(rowName.length, ...rows.map((name) => name.length))
  const cell = (width - left - 8) / columns.length
  // Names that are wider than their cells are turned.
  const longest = Math.max(...columns.map((name) => name.length))
  const turned = longest * 6.4 > cell - 4
  const top = 40 + (turned ? 10 + 4.7 * longest : 16)
  const height = top + rows.length * cellHeight + 14
  const numbers = chart.numbers ?? (cell >= 30 && cellHeight >= 16)
  const heads = columns.map((name, c) => {
    const [x, y] = [left + cell * (c + 0.5), top - 7]
    return turned
      ? label(name, x, y, { class: 'tick', transform: `rotate(-45 ${x.toFixed(1)} ${y.toFixed(1)})` })
      : label(name, x, y, { class: 'tick', 'text-anchor': 'middle' })
  })
  const body = rows.map((name, r) => {
    const y = top + r * cellHeight
    const head = label(name, left - 7, y + cellHeight / 2 + 4, { class: 'tick', 'text-anchor': 'end' })
    const cells = columns.map((column, c) => {
      const value = values[r]?.[c] ?? null
      const box = { x: left + c * cell + gap / 2, y: y + gap / 2, width: cell - gap, height: cellHeight - gap, rx: 2 }
      if (value === null) return element('rect', { ...box, class: 'empty' })
      const share = place(value)
      const text = escapeText(`${rowName} ${name}, ${column}: ${shortNumber(value)} ${chart.unit}`)
      const ink = (colours === 'diverging' ? Math.abs(share - 0.5) * 2 : share) > 0.55 ? 'on-dark' : 'on-light'
      const number = numbers
        ? label(shortNumber(value), box.x + box.width / 2, y + cellHeight / 2 + 3.5, {
            class: `cell ${ink}`,
            'text-anchor': 'middle',
          })
        : ''
      return (
        element('rect', { ...box, style: `fill: ${colourAt(share, colours)}` }, element('title', {}, text)) + number
      )
    })
    return head + cells.join('')
  })
  const names = label(rowName, left - 7, top - 7, { class: 'name', 'text-anchor': 'end' })
  return figure(chart, width, height, key(chart, low, high, width), names, ...heads, ...body)
}

function colourAt(share: number, colours: 'sequential' | 'diverging'): string {
  const mix = (a: string, b: string, part: number) =>
    `color-mix(in oklab, var(--${a}), var(--${b}) ${(100 * part).toFixed(1)}%)`
  if (colours === 'sequential') return mix('heat-low', 'heat-high', share)
  return share < 0.5 ? mix('heat-middle', 'heat-below', 1 - 2 * share) : mix('heat-middle', 'heat-high', 2 * share - 1)
}

function key({ unit, colours = 'sequential' }: HeatMap, low: number, high: number, width: number): string {
  const steps = 24
  const size = Math.min(120, width / 4)
  const x = width - 8 - size - 44
  const boxes = Array.from({ length: steps }, (_, i) =>
    element('rect', {
      ...{ x: x + (i * size) / steps, y: 8, width: size / steps + 0.5, height: 10 },
      style: `fill: ${colourAt(i / (steps - 1), colours)}`,
    }),
  )
  return (
    label(unit, x - 16 - 6.6 * shortNumber(low).length, 17, { class: 'legend', 'text-anchor': 'end' }) +
    label(shortNumber(low), x - 6, 17, { class: 'tick', 'text-anchor': 'end' }) +
    boxes.join('') +
    label(shortNumber(high), x + size + 6, 17, { class: 'tick' })
  )
}
