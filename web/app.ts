import { type Bench, type OwnAdapter, sentenceOf, type View } from './bench.ts'
import { bundleBadge } from './bundle-dialog.ts'
import { h, icons } from './dom.ts'
import type { OpenModel, PageSource, PlaygroundModel } from './model.ts'
import { loadingView, openView } from './open-view.ts'
import { findWebGpuFault, webGpuPage } from './support.ts'
import { workspace } from './workspace.ts'

/** What a page is made of. */
export interface AppOptions {
  readonly openModel: OpenModel
  /** Views beside chat and comparison. */
  readonly views: readonly ((bench: Bench) => View)[]
}

/** A bundle that was asked for, and how. */
interface Wanted {
  readonly source: PageSource
  readonly name: string
  readonly restricted: boolean
  readonly key?: string
  /** Adapters of this page, put on again when the bundle is loaded again. */
  readonly own: OwnAdapter[]
}

/** The page: it opens a bundle, and shows one thing at a time. */
export class App {
  readonly #options: AppOptions
  readonly #main = document.querySelector('main')!
  readonly #tabs = document.querySelector('#tabs')!
  readonly #bundle = document.querySelector('#bundle')!
  #model: PlaygroundModel | undefined

  constructor(options: AppOptions) {
    this.#options = options
  }

  /** Opens the bundle that the address names or that lies beside the page; asks for one where there is none. */
  async start(): Promise<void> {
    const fault = await findWebGpuFault()
    if (fault) return this.#show(webGpuPage(fault, () => location.reload()))
    const query = new URLSearchParams(location.search)
    const named = query.get('bundle')
    const url = URL.parse(named ?? '.', document.baseURI)
    if (url?.origin !== location.origin) return this.#ask()
    if (named === null && !(await isThere(new URL('manifest.json', url)))) return this.#ask()
    const name = query.get('name') ?? url.pathname.split('/').filter(Boolean).at(-1) ?? 'the bundle'
    await this.#open({ source: url, name, restricted: false, own: [] })
  }

  #show(element: HTMLElement): void {
    this.#tabs.replaceChildren()
    this.#bundle.replaceChildren()
    this.#main.replaceChildren(element)
  }

  #ask(fault?: HTMLElement): void {
    this.#show(openView((source, name) => void this.#open({ source, name, restricted: false, own: [] }), fault))
  }

  async #open(wanted: Wanted): Promise<void> {
    this.#model?.close()
    this.#model = undefined
    const stop = new AbortController()
    const { element, show } = loadingView(wanted.name, () => stop.abort())
    this.#show(element)
    const { source, restricted: enableRestricted, key } = wanted
    try {
      const options = { enableRestricted, key, onProgress: show, signal: stop.signal }
      const model = await this.#options.openModel(source, options)
      this.#model = model
      for (const { name, zip } of wanted.own) await model.addAdapter(name, zip)
      model.onLost(() => {
        if (this.#model === model) this.#main.prepend(lostNote())
      })
      this.#work(model, wanted)
    } catch (error) {
      if (stop.signal.aborted) this.#ask()
      else this.#ask(faultBox(error, wanted.name))
    }
  }

  #work(model: PlaygroundModel, wanted: Wanted): void {
    const { tabs, element } = workspace(model, {
      ...{ more: this.#options.views, own: wanted.own, restricted: wanted.restricted },
      onGone: (message) => this.#show(this.#gonePage(message, wanted)),
      setRestricted: (restricted) => void this.#open({ ...wanted, restricted }),
    })
    this.#main.replaceChildren(element)
    this.#tabs.replaceChildren(tabs)
    this.#bundle.replaceChildren(
      h('span', { class: 'bundle-name', title: wanted.name }, wanted.name),
      bundleBadge(model, (key) => void this.#open({ ...wanted, key })),
      h(
        'button',
        {
          class: 'button small',
          title: 'Open another bundle',
          'aria-label': 'Open another bundle',
          onclick: () => this.#leave(),
        },
        icons.folder(),
      ),
    )
    this.#main.focus({ preventScroll: true })
  }

  #leave(): void {
    this.#model?.close()
    this.#model = undefined
    this.#ask()
  }

  #gonePage(message: string, wanted: Wanted): HTMLElement {
    return h(
      'div',
      { class: 'opening stack' },
      h('h1', {}, 'The GPU went away'),
      h(
        'p',
        { class: 'lead' },
        'Its driver was restarted, the machine slept, or the browser took the memory back. Nothing is wrong with the bundle; adapters of this page are kept.',
      ),
      message !== '' && h('p', { class: 'hint' }, `The browser says: ${message}`),
      h(
        'div',
        { class: 'buttons' },
        h('button', { class: 'button primary', onclick: () => void this.#open(wanted) }, 'Load it again'),
        h('button', { class: 'button', onclick: () => this.#leave() }, 'Open another bundle'),
      ),
      h(
        'p',
        { class: 'hint' },
        'If it happens again: close other tabs that use the GPU, update its driver, or take a smaller bundle.',
      ),
    )
  }
}

/** What is said when the GPU was lost and the model comes back by itself. */
function lostNote(): HTMLElement {
  const note = h(
    'p',
    { class: 'fault lost', role: 'alert' },
    'The GPU went away for a moment. The model is loaded again by itself when you ask next. ',
    h('button', { class: 'button small', onclick: () => note.remove() }, 'Close'),
  )
  return note
}

async function isThere(url: URL): Promise<boolean> {
  try {
    return (await fetch(url, { method: 'HEAD' })).ok
  } catch {
    return false
  }
}

/** Why a bundle did not open. */
function faultBox(error: unknown, name: string): HTMLElement {
  const cure: Readonly<Record<string, string>> = {
    BundleError: 'No weight of it reached the GPU. Ask whoever you have it from for a whole one.',
    NetworkError: 'Look whether the server runs, then try again.',
    ResourceError: 'Close other tabs that use the GPU, or take a bundle in nf4 or int8.',
  }
  const advice = cure[(error as Error)?.name]
  return h(
    'div',
    { class: 'fault', role: 'alert' },
    h('p', {}, h('strong', {}, `${name} was not opened.`)),
    h('p', {}, sentenceOf(error)),
    advice && h('p', { class: 'hint' }, advice),
  )
}
