// Elements made of plain calls. Text goes in as text: nothing here reads markup.

/** What an element may hold; empty values hold nothing. */
export type Child = Node | string | number | undefined | false

type Listener = (event: never) => void

/** Attributes by name, and listeners by `on` and the event's name; false and undefined leave one out. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined | Listener>>

const svgNames = 'http://www.w3.org/2000/svg'

function fill<E extends Element>(element: E, attributes: Attributes, children: readonly Child[]): E {
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === 'function') element.addEventListener(name.slice(2), value as EventListener)
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? '' : String(value))
  element.append(...children.filter((child) => child !== undefined && child !== false).map(asNode))
  return element
}

function asNode(child: Child): Node | string {
  return child instanceof Node ? child : String(child)
}

/** An HTML element. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(name), attributes, children)
}

/** An SVG element. */
export function svg<K extends keyof SVGElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(svgNames, name), attributes, children)
}

/** An icon of strokes on a grid of 24, which says nothing to a screen reader. */
export function icon(...paths: string[]): SVGSVGElement {
  return svg(
    'svg',
    { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true', focusable: 'false' },
    ...paths.map((d) => svg('path', { d })),
  )
}

/** The icons of the page. */
export const icons = {
  check: () => icon('M5 12.5l4.5 4.5L19 7.5'),
  folder: () => icon('M3.5 6.5h6l2 2.5h9v9.5h-17z'),
  archive: () => icon('M4 4.5h16v4H4z', 'M5.5 8.5v11h13v-11', 'M10 12.5h4'),
  send: () => icon('M12 19V5', 'M6 11l6-6 6 6'),
  stop: () =>
    svg(
      'svg',
      { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true' },
      svg('path', { d: 'M7.5 7.5h9v9h-9z', fill: 'currentColor' }),
    ),
  download: () => icon('M12 4v11', 'M7 10.5l5 5 5-5', 'M5 20h14'),
  upload: () => icon('M12 16V5', 'M7 9.5l5-5 5 5', 'M5 20h14'),
  close: () => icon('M6 6l12 12', 'M18 6L6 18'),
  alert: () => icon('M12 4l9 16H3z', 'M12 10v4.5', 'M12 17.2v.3'),
}

let lastId = 0

/** A field with its label, and a hint that belongs to it. */
export function field(
  label: string,
  control: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement,
  hint?: string,
): HTMLDivElement {
  control.id ||= `field-${++lastId}`
  const note = hint ? h('p', { class: 'hint', id: `${control.id}-hint` }, hint) : undefined
  if (note) control.setAttribute('aria-describedby', note.id)
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, note)
}

/** Hands a file to the person. */
export function saveFile(name: string, bytes: Uint8Array<ArrayBuffer>, type: string): void {
  const address = URL.createObjectURL(new Blob([bytes], { type }))
  h('a', { href: address, download: name }).click()
  // The download has taken hold of it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000)
}

/** `1.24 MB`, in decimal units. */
export function byteSize(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(bytes < 1e4 ? 1 : 0)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}

/** `1,101,440` or `1.1 million`. */
export function count(value: number): string {
  return value < 1e6 ? value.toLocaleString('en') : `${(value / 1e6).toFixed(1)} million`
}
