import { AnswerCard, adapterSelect } from './answer.ts'
import type { Bench, View } from './bench.ts'
import { composer } from './composer.ts'
import { h } from './dom.ts'

/** Two adapters on one prompt, side by side. */
export function compareView(bench: Bench): View {
  const sides = ['First', 'Second'].map((which, i) => {
    const select = adapterSelect(bench, false, i)
    select.setAttribute('aria-label', `${which} adapter`)
    const place = h('div', {}, h('p', { class: 'hint' }, 'Its answer comes here.'))
    return { select, place, element: h('section', { class: 'card', 'aria-label': `${which} adapter` }, select, place) }
  })
  const shown = h('div', { class: 'prompt', hidden: true })
  const answers = h('div', { class: 'versus', 'aria-live': 'polite' }, ...sides.map(({ element }) => element))
  const send = (prompt: string) =>
    bench.run(async (signal) => {
      shown.textContent = prompt
      shown.hidden = false
      answers.setAttribute('aria-busy', 'true')
      const cards = sides.map(({ select, place }) => {
        const card = new AnswerCard(bench, prompt)
        place.replaceChildren(card.element)
        return { card, capability: select.value }
      })
      for (const { card, capability } of cards) if (!signal.aborted) await card.write(capability, signal)
      answers.setAttribute('aria-busy', 'false')
    })
  const hint = h('p', { class: 'hint' }, 'Same prompt, same settings, same seed.')
  const { element } = composer(bench, 'Write a prompt for both', hint, (prompt) => void send(prompt))
  return {
    title: 'Compare',
    element: h(
      'div',
      { class: 'talk' },
      h(
        'div',
        { class: 'log' },
        h(
          'div',
          { class: 'stack tight' },
          h('h1', {}, 'One prompt, two adapters'),
          h('p', { class: 'lead' }, 'The backbone stays where it is; only the adapter on it changes.'),
        ),
        shown,
        answers,
      ),
      element,
    ),
  }
}
