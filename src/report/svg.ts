import { fnv1a } from '../core/random.ts'

/** Text that may stand in HTML and SVG. */
export function escapeText(text: string): string {
  const names: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  }
  return text.replace(/[&<>"']/g, (character) => names[character])
}

/** An element; attributes are escaped, children are markup and stand as they are. */
export function element(name: string, attributes: Readonly<Record<string, string | number>>, ...children: string[]) {
  const list = Object.entries(attributes).map(([key, value]) => {
    const text = typeof value === 'number' ? String(Math.round(value * 100) / 100) : escapeText(value)
    return ` ${key}="${text}"`
  })
  return `<${name}${list.join('')}>${children.join('')}</${name}>`
}

/** A word or number at a place. */
export function label(text: string, x: number, y: number, attributes: Readonly<Record<string, string | number>> = {}) {
  return element('text', { x, y, ...attributes }, escapeText(text))
}

/** What a chart is, for those who see it and those who do not. */
export interface ChartText {
  /** Above the chart, and its name for a screen reader. */
  readonly title: string
  /** One sentence on what it shows. */
  readonly description: string
}

/** A drawing of its own size that shrinks with the page, named for screen readers. */
export function figure(
  { title, description }: ChartText,
  width: number,
  height: number,
  ...children: string[]
): string {
  // By what it shows, so that a report of the same numbers is the same file.
  const id = `chart-${fnv1a(`${title}\n${description}\n${children.join('')}`).toString(36)}`
  return element(
    'svg',
    {
      ...{ xmlns: 'http://www.w3.org/2000/svg', viewBox: `0 0 ${width} ${height}`, class: 'chart', role: 'img' },
      ...{ 'aria-labelledby': `${id}-title ${id}-text`, style: `max-width: ${width}px` },
    },
    element('title', { id: `${id}-title` }, escapeText(title)),
    element('desc', { id: `${id}-text` }, escapeText(description)),
    ...children,
  )
}

/**
 * The names of series with their colours, in as many lines as `width` asks for; nothing for one series.
 * @returns the markup and the height that it takes from `y`, its first baseline, downwards.
 */
export function legend(
  series: readonly { readonly name: string; readonly colour?: number }[],
  { x, y, width }: { readonly x: number; readonly y: number; readonly width: number },
): { readonly markup: string; readonly height: number } {
  if (series.length < 2) return { markup: '', height: 0 }
  let [at, line] = [x, y]
  const parts = series.map(({ name, colour }, i) => {
    const size = 35 + 6.4 * name.length
    if (at > x && at + size - 20 > x + width) [at, line] = [x, line + 17]
    const key = element('rect', {
      ...{ x: at, y: line - 9, width: 10, height: 10, rx: 2, class: `fill-${seriesClass(colour ?? i)}` },
    })
    const text = label(name, at + 15, line, { class: 'legend' })
    at += size
    return key + text
  })
  return { markup: parts.join(''), height: line - y }
}

/** Colours that are told apart, in their order; more series begin again. */
export const seriesColours = 6

/** `s1`: the class of series `index`. */
export function seriesClass(index: number): string {
  return `s${(index % seriesColours) + 1}`
}
