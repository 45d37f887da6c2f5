import { AnswerCard, adapterSelect } from './answer.ts'
import type { Bench, View } from './bench.ts'
import { composer } from './composer.ts'
import { h } from './dom.ts'

/** Prompts and answers, one below the other. */
export function chatView(bench: Bench): View & { choose(capability: string): void } {
  const select = adapterSelect(bench, true)
  select.setAttribute('aria-label', 'Adapter')
  const log = h('div', { class: 'log', role: 'log', 'aria-live': 'polite', 'aria-label': 'Answers' })
  const hello = h(
    'div',
    { class: 'stack tight' },
    h('h1', {}, 'What should it continue?'),
    h('p', { class: 'lead' }, 'Write a prompt, or begin with one of the examples that came with the bundle.'),
    examples(bench, (name, prompt) => {
      if (bench.busy) return
      select.value = name
      void send(prompt)
    }),
  )
  log.append(hello)
  const send = (prompt: string) =>
    bench.run(async (signal) => {
      hello.remove()
      const card = new AnswerCard(bench, prompt)
      const turn = h('div', { class: 'turn' }, h('div', { class: 'prompt' }, prompt), card.element)
      log.append(turn)
      turn.scrollIntoView({ block: 'nearest' })
      // A screen reader is told once, when the answer is there.
      log.setAttribute('aria-busy', 'true')
      await card.write(select.value || undefined, signal)
      log.setAttribute('aria-busy', 'false')
      turn.scrollIntoView({ block: 'nearest' })
    })
  const { element, input } = composer(
    bench,
    'Write a prompt',
    h('label', {}, h('span', {}, 'Adapter'), select),
    (prompt) => void send(prompt),
  )
  return {
    title: 'Chat',
    element: h('div', { class: 'talk' }, log, element),
    choose(capability) {
      select.value = capability
      input.focus()
    },
  }
}

/** What each capability can do, as prompts to try. */
function examples(bench: Bench, choose: (name: string, prompt: string) => void): HTMLElement {
  const { capabilities } = bench.model.manifest
  return h(
    'div',
    { class: 'examples' },
    ...bench.model.capabilities
      .filter((name) => capabilities[name])
      .map((name) => {
        const { example, metric, retention } = capabilities[name]
        return h(
          'button',
          { class: 'example', onclick: () => choose(name, example) },
          h('span', { class: 'chip accent' }, name),
          h('span', { class: 'mono' }, example),
          h('span', { class: 'hint' }, `keeps ${(100 * retention).toFixed(1)} % (${metric.replaceAll('_', ' ')})`),
        )
      }),
  )
}
