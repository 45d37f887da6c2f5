import { element, escapeText } from './svg.ts'

/** A part of a report: charts and tables under a heading. */
export interface Section {
  readonly title: string
  /** One or two sentences on what is seen, as text. */
  readonly text?: string
  /** Markup: charts and {@link dataTable}s. */
  readonly body: readonly string[]
}

/** A report. */
export interface Report {
  readonly title: string
  /** Under the title, as text. */
  readonly subtitle: string
  /** Figures that matter most, in large type. */
  readonly figures?: readonly { readonly name: string; readonly value: string }[]
  readonly sections: readonly Section[]
}

const style = `
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --ink: #1d1f23; --soft: #62666e; --line: #e3e3df;
  --s1: #2a6fdb; --s2: #d9730d; --s3: #0f8a6d; --s4: #a83fb5; --s5: #b8860b; --s6: #5b6470;
  --heat-low: #edf3fb; --heat-high: #14408a; --heat-middle: #f1f0ec; --heat-below: #a8480a; --empty: #f0f0ed;
  --on-light: #1d1f23; --on-dark: #ffffff }
@media (prefers-color-scheme: dark) { :root { --page: #131519; --card: #1b1e24; --ink: #e8e9ec; --soft: #a0a5ae;
  --line: #30343c; --s1: #6aa5ff; --s2: #f0984b; --s3: #43c2a2; --s4: #d07bdc; --s5: #d9b24a; --s6: #9aa3ae;
  --heat-low: #1f2733; --heat-high: #8dbbff; --heat-middle: #262930; --heat-below: #f0984b; --empty: #22252b;
  --on-light: #e8e9ec; --on-dark: #101216 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0 0 2px } h2 { font-size: 18px; margin: 0 0 4px } h3 { font-size: 14px; margin: 0 0 6px }
p { margin: 0 0 12px; color: var(--soft); max-width: 82ch }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 16px 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 22px 26px }
.wide { grid-column: 1 / -1 }
.figures { display: flex; flex-wrap: wrap; gap: 10px 34px; margin: 14px 0 4px }
.figures div { font-size: 13px; color: var(--soft) } .figures b { display: block; font-size: 24px; color: var(--ink) }
.chart { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif }
.chart text { fill: var(--soft) } .chart .name, .chart .legend { fill: var(--ink); font-size: 11.5px }
.chart .grid { stroke: var(--line) } .chart .axis { stroke: var(--soft) } .chart .empty { fill: var(--empty) }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round } .chart .dot { stroke: var(--card); stroke-width: 1.5 }
.chart .cell { font-size: 10px } .chart .on-light { fill: var(--on-light) } .chart .on-dark { fill: var(--on-dark) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px } th { text-align: left; color: var(--soft); font-weight: 500 }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
pre { white-space: pre-wrap; margin: 0; font: 12px/1.45 ui-monospace, monospace }
${Array.from({ length: 6 }, (_, i) => `.fill-s${i + 1} { fill: var(--s${i + 1}) } .stroke-s${i + 1} { stroke: var(--s${i + 1}) }`).join(' ')}
`

/** A report as one HTML file that needs nothing else: no script, no network; light and dark as the reader likes it. */
export function reportPage({ title, subtitle, figures = [], sections }: Report): string {
  const parts = sections.map(({ title: name, text, body }) =>
    element(
      'section',
      {},
      element('h2', {}, escapeText(name)),
      text ? element('p', {}, escapeText(text)) : '',
      element('div', { class: 'charts' }, ...body),
    ),
  )
  const large = figures.map(({ name, value }) =>
    element('div', {}, element('b', {}, escapeText(value)), escapeText(name)),
  )
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${escapeText(title)}</title><style>${style}</style>`
  const header = element('h1', {}, escapeText(title)) + element('p', {}, escapeText(subtitle))
  const main = element('main', {}, header, element('div', { class: 'figures' }, ...large), ...parts)
  return `<!doctype html>\n<html lang="en"><head>${head}</head><body>${main}</body></html>\n`
}

/** A chart under its title; `wide` takes the whole line. */
export function card(title: string, chart: string, { wide = false } = {}): string {
  return element('div', { class: wide ? 'wide' : 'half' }, element('h3', {}, escapeText(title)), chart)
}

/** A table of texts; columns of numbers stand to the right. */
export function dataTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const numeric = header.map(
    (_, c) => rows.length > 0 && rows.every((row) => /^([-+−]?\d[\d.,]*(e-?\d+)?( |$)|$)/.test(row[c])),
  )
  const cell = (kind: 'th' | 'td') => (text: string, c: number) =>
    element(kind, numeric[c] ? { class: 'number' } : {}, escapeText(text))
  const line = (cells: string) => element('tr', {}, cells)
  const body = rows.map((row) => line(row.map(cell('td')).join('')))
  const table = element('table', {}, line(header.map(cell('th')).join('')), ...body)
  return element('div', { class: 'scroll wide' }, table)
}
