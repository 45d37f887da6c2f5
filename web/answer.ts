import { type Bench, isGone, sentenceOf, wasStopped } from './bench.ts'
import { h } from './dom.ts'
import type { Reply } from './model.ts'

/** An answer that is being written: its text, what gave it, and what can be done with it. */
export class AnswerCard {
  readonly element: HTMLElement
  readonly #bench: Bench
  readonly #prompt: string
  readonly #text = h('div', { class: 'answer-text' })
  readonly #meta = h('div', { class: 'meta' })
  #written = ''

  constructor(bench: Bench, prompt: string) {
    this.#bench = bench
    this.#prompt = prompt
    this.element = h('div', { class: 'answer' }, this.#text, this.#meta)
  }

  /** Writes the answer of one adapter, or of the one that the router chooses, behind what is there. */
  async write(capability: string | undefined, signal: AbortSignal): Promise<void> {
    const before = this.#written
    this.#meta.replaceChildren(h('span', {}, 'Reading the prompt …'))
    this.#text.classList.add('writing')
    const request = { prompt: this.#prompt + before, capability }
    try {
      const reply = await this.#bench.answer(
        request,
        (piece) => {
          this.#show(this.#written + piece)
          this.#meta.replaceChildren()
        },
        signal,
      )
      this.#show(before + reply.text)
      this.#tell(reply, signal.aborted)
    } catch (error) {
      if (isGone(error)) this.#bench.onGone((error as Error).message)
      else if (wasStopped(error, signal)) this.#meta.replaceChildren(h('span', {}, 'Stopped'))
      else this.#meta.replaceChildren(h('p', { class: 'fault', role: 'alert' }, sentenceOf(error)))
    } finally {
      this.#text.classList.remove('writing')
    }
  }

  #show(text: string): void {
    this.#written = text
    this.#text.textContent = text
  }

  #tell({ capability, chosenBy, tokens, tokensPerSecond }: Reply, stopped: boolean): void {
    const button = (title: string, click: () => void) => h('button', { class: 'button small', onclick: click }, title)
    const copy = button('Copy', async () => {
      await navigator.clipboard.writeText(this.#written)
      copy.textContent = 'Copied'
    })
    const rate = tokensPerSecond >= 10 ? tokensPerSecond.toFixed(0) : tokensPerSecond.toFixed(1)
    this.#meta.replaceChildren(
      h('span', { class: 'chip accent' }, capability),
      h('span', {}, chosenBy === 'router' ? 'chosen by the router' : 'chosen by you'),
      h('span', {}, `${tokens} ${tokens === 1 ? 'token' : 'tokens'}`),
      ...(tokens > 0 ? [h('span', {}, `${rate} tokens/s`)] : []),
      ...(stopped ? [h('span', {}, 'stopped')] : []),
      h(
        'span',
        { class: 'actions' },
        copy,
        button('Continue', () => void this.#bench.run((signal) => this.write(capability, signal))),
      ),
    )
    if (this.#written === '')
      this.#text.append(h('span', { class: 'muted' }, 'An empty answer: the model ended at once.'))
  }
}

/** A choice among the adapters of the moment, which keeps what is chosen as they come and go. */
export function adapterSelect(bench: Bench, automatic: boolean, first = 0): HTMLSelectElement {
  const select = h('select', {})
  bench.onChange(() => {
    const { capabilities, routed } = bench.model
    const options = [...(automatic && routed ? [''] : []), ...capabilities]
    if (options.join('\n') === [...select.options].map(({ value }) => value).join('\n')) return
    const chosen = select.options.length > 0 ? select.value : options[Math.min(first, options.length - 1)]
    select.replaceChildren(
      ...options.map((name) => h('option', { value: name }, name === '' ? 'Automatic: the router' : name)),
    )
    select.value = options.includes(chosen) ? chosen : options[0]
  })
  return select
}
