import { Bench, type OwnAdapter, type View } from './bench.ts'
import { chatView } from './chat-view.ts'
import { compareView } from './compare-view.ts'
import { byteSize, h } from './dom.ts'
import type { PlaygroundModel } from './model.ts'
import { samplingFields } from './settings.ts'

/** What a workspace is made of. */
export interface WorkspaceOptions {
  /** Views behind those that every page has. */
  readonly more: readonly ((bench: Bench) => View)[]
  /** Adapters that were made in this page. */
  readonly own: OwnAdapter[]
  readonly restricted: boolean
  /** Told when the GPU is gone for good. */
  readonly onGone: (message: string) => void
  /** Loads the bundle again, with its restricted adapters or without them. */
  readonly setRestricted: (on: boolean) => void
}

/** The page with a model: tabs, the view that is chosen, and at its side the settings. */
export function workspace(
  model: PlaygroundModel,
  options: WorkspaceOptions,
): { tabs: HTMLElement; element: HTMLElement } {
  const sampling = samplingFields(model.contextLength)
  const bench = new Bench(model, sampling.read, options.own)
  bench.onGone = options.onGone
  const chat = chatView(bench)
  const views: View[] = [chat, compareView(bench), ...options.more.map((make) => make(bench))]
  const panels = views.map(({ element, title }, i) =>
    h('div', { ...{ class: 'panel', role: 'tabpanel', id: `panel-${i}`, 'aria-label': title } }, element),
  )
  const buttons = views.map(({ title }, i) =>
    h('button', { role: 'tab', id: `tab-${i}`, 'aria-controls': `panel-${i}`, onclick: () => choose(i) }, title),
  )
  const choose = (chosen: number) => {
    for (const [i, button] of buttons.entries()) {
      button.setAttribute('aria-selected', String(i === chosen))
      button.tabIndex = i === chosen ? 0 : -1
      panels[i].hidden = i !== chosen
    }
  }
  const tabs = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Views' }, ...buttons)
  tabs.addEventListener('keydown', (event) => {
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement)
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key]
    if (at < 0 || to === undefined) return
    event.preventDefault()
    const next = (to + buttons.length) % buttons.length
    choose(next)
    buttons[next].focus()
  })
  bench.show = (title, capability) => {
    choose(
      Math.max(
        0,
        views.findIndex((view) => view.title === title),
      ),
    )
    if (capability) chat.choose(capability)
  }
  choose(0)
  const side = h('aside', { class: 'side', 'aria-label': 'Settings' }, sidePanel(bench, sampling.element, options))
  return { tabs, element: h('div', { class: 'workspace' }, h('div', { class: 'panel' }, ...panels), side) }
}

function sidePanel(bench: Bench, sampling: HTMLElement, options: WorkspaceOptions): HTMLElement {
  const { model } = bench
  const restricted = Object.entries(model.manifest.capabilities).flatMap(([name, c]) => (c.restricted ? [name] : []))
  const memory = h('dd', {}, '–')
  const adapters = h('dd', {})
  bench.onChange(() => {
    adapters.textContent = `${model.capabilities.length}`
    // Asked when something ends: a worker that generates answers late.
    if (!bench.busy)
      model.memory().then(
        (bytes) => (memory.textContent = byteSize(bytes)),
        () => (memory.textContent = '–'),
      )
  })
  const details = h(
    'details',
    {},
    h('summary', {}, 'Settings'),
    h(
      'div',
      {},
      sampling,
      restricted.length > 0 && restrictedSwitch(restricted, options),
      h(
        'div',
        { class: 'stack tight' },
        h('h2', {}, 'Machine'),
        h(
          'dl',
          { class: 'facts' },
          ...[h('dt', {}, 'GPU'), h('dd', {}, model.gpu.name)],
          ...[h('dt', {}, 'Memory in use'), memory],
          ...[h('dt', {}, 'Adapters'), adapters],
        ),
        model.gpu.software && h('p', { class: 'hint' }, 'This is a GPU in software: a real one is many times faster.'),
      ),
    ),
  )
  // At the side it is always open; above the panels it opens when asked.
  const wide = matchMedia('(min-width: 60.01rem)')
  const follow = () => details.toggleAttribute('open', wide.matches)
  wide.addEventListener('change', follow)
  follow()
  return details
}

function restrictedSwitch(names: readonly string[], { restricted, setRestricted }: WorkspaceOptions): HTMLElement {
  const input = h('input', {
    type: 'checkbox',
    role: 'switch',
    id: 'restricted',
    'aria-describedby': 'restricted-hint',
  })
  input.checked = restricted
  input.addEventListener('change', () => setRestricted(input.checked))
  return h(
    'div',
    { class: 'switch' },
    input,
    h(
      'div',
      {},
      h('label', { for: 'restricted' }, 'Restricted adapters'),
      h(
        'p',
        { class: 'hint', id: 'restricted-hint' },
        `${names.join(', ')}: whoever made the bundle wants you to ask for ${names.length > 1 ? 'them' : 'it'}. The bundle is loaded again.`,
      ),
    ),
  )
}
