import type { Bench } from './bench.ts'
import { h, icons } from './dom.ts'

/** Where a prompt is written: Enter sends it, Shift and Enter begin a line, and one button sends or stops. */
export interface Composer {
  readonly element: HTMLFormElement
  readonly input: HTMLTextAreaElement
}

/**
 * @param beside what stands beside the button.
 * @param send is given the prompt.
 */
export function composer(bench: Bench, label: string, beside: HTMLElement, send: (prompt: string) => void): Composer {
  const input = h('textarea', { rows: 1, 'aria-label': label, placeholder: label, enterkeyhint: 'send' })
  const grow = () => {
    input.style.height = 'auto'
    input.style.height = `${input.scrollHeight}px`
  }
  const button = h('button', { class: 'button primary round' })
  const submit = (event: Event) => {
    event.preventDefault()
    if (bench.busy) bench.stop()
    else if (input.value !== '') {
      const prompt = input.value
      input.value = ''
      grow()
      send(prompt)
    } else input.focus()
  }
  const element = h(
    'form',
    { class: 'composer', onsubmit: submit },
    h('div', { class: 'box' }, input, h('div', { class: 'box-row' }, beside, button)),
  )
  input.addEventListener('input', grow)
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    if (!bench.busy) element.requestSubmit()
  })
  bench.onChange(() => {
    button.setAttribute('aria-label', bench.busy ? 'Stop' : 'Send')
    button.title = bench.busy ? 'Stop' : 'Send'
    button.replaceChildren(bench.busy ? icons.stop() : icons.send())
  })
  return { element, input }
}
