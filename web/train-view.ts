import { type AdapterFile, readAdapterFiles } from './adapter-file.ts'
import { type Bench, isGone, type OwnAdapter, sentenceOf, type View, wasStopped } from './bench.ts'
import { byteSize, field, h, icons, saveFile } from './dom.ts'
import { LossCurve } from './loss-curve.ts'
import type { Lesson } from './model.ts'

/** Learning a text in the page, and the adapters that come of it. */
export function trainView(bench: Bench): View {
  const text = h('textarea', { rows: 8, required: true, placeholder: 'A page of text in the style it should learn' })
  const name = h('input', { required: true, value: 'my-style', autocomplete: 'off', spellcheck: 'false' })
  const numeric = (value: number, min: number, max: number, step: number | 'any' = 1) =>
    h('input', { type: 'number', required: true, value, min, max, step, inputmode: 'decimal' })
  const rank = h(
    'select',
    {},
    ...[4, 8, 16, 32].map((value) => h('option', { value, selected: value === 8 }, `${value}`)),
  )
  const steps = numeric(60, 1, 5000)
  const lr = numeric(0.002, 0.000001, 0.5, 'any')
  const seed = numeric(42, 0, 2 ** 31 - 1)
  const start = h('button', { class: 'button primary' }, 'Train')
  const cancel = h('button', { class: 'button', type: 'button', onclick: () => bench.stop(), hidden: true }, 'Cancel')
  const curve = new LossCurve()
  const figure = () => h('dd', {}, '–')
  const [step, loss, fall, rate] = [figure(), figure(), figure(), figure()]
  const status = h('div', { role: 'status' })
  let training = false

  const train = async (event: Event) => {
    event.preventDefault()
    const lesson: Lesson = {
      text: text.value,
      name: name.value.trim(),
      ...{ rank: Number(rank.value), steps: Number(steps.value), lr: Number(lr.value), seed: Number(seed.value) },
    }
    try {
      bench.checkName(lesson.name)
    } catch (error) {
      status.replaceChildren(fault(error))
      name.focus()
      return
    }
    training = true
    await bench.run(async (signal) => {
      curve.begin(lesson.steps)
      for (const place of [step, loss, fall, rate]) place.textContent = '–'
      status.replaceChildren(
        h('p', { class: 'muted' }, 'Training … The first step takes longest: the GPU’s programs are made for it.'),
      )
      let first = 0
      try {
        const { zip, changed } = await bench.model.train!(
          lesson,
          (done) => {
            if (done.step === 1) {
              first = done.loss
              status.replaceChildren(h('p', { class: 'muted' }, 'Training …'))
            }
            curve.add(done.loss)
            step.textContent = `${done.step} / ${done.steps}`
            loss.textContent = done.loss.toFixed(3)
            const change = (100 * (done.loss - first)) / first
            fall.textContent = `${change > 0 ? '+' : change < 0 ? '−' : ''}${Math.abs(change).toFixed(0)} %`
            rate.textContent = done.tokensPerSecond.toFixed(0)
          },
          signal,
        )
        bench.keep({ name: lesson.name, origin: 'trained', zip })
        const tryIt = h('button', { class: 'button', onclick: () => bench.show('Chat', lesson.name) }, 'Try it')
        status.replaceChildren(
          h(
            'div',
            { class: 'stack tight' },
            h('p', {}, h('strong', {}, lesson.name), ' has learned the text and is among the adapters now.'),
            changed > 0 &&
              h('p', { class: 'hint' }, `${changed} characters that the model does not know were replaced.`),
            h('div', { class: 'buttons' }, tryIt),
          ),
        )
      } catch (error) {
        if (isGone(error)) bench.onGone((error as Error).message)
        const stopped = wasStopped(error, signal)
        status.replaceChildren(stopped ? h('p', { class: 'muted' }, 'Cancelled; nothing was kept.') : fault(error))
      }
    })
    training = false
    cancel.hidden = true
  }
  bench.onChange(() => {
    start.disabled = bench.busy
    cancel.hidden = !(bench.busy && training)
  })
  const form = h(
    'form',
    { class: 'stack', onsubmit: (event: Event) => void train(event) },
    field('Text', text, 'It stays on this machine. A paragraph works, a page is better.'),
    h(
      'div',
      { class: 'fields' },
      field('Name', name),
      field('Rank', rank),
      field('Steps', steps),
      field('Learning rate', lr),
      field('Seed', seed),
    ),
    h('div', { class: 'buttons' }, start, cancel),
  )
  const figures = h(
    'dl',
    { class: 'figures' },
    ...(
      [
        ['Step', step],
        ['Loss', loss],
        ['Change', fall],
        ['Tokens/s', rate],
      ] as const
    ).map(([title, value]) => h('div', {}, h('dt', {}, title), value)),
  )
  return {
    title: 'Train',
    element: h(
      'div',
      { class: 'stack' },
      h(
        'div',
        { class: 'stack tight' },
        h('h1', {}, 'Teach it a text'),
        h(
          'p',
          { class: 'lead' },
          'An adapter learns to continue what you paste, on your GPU. The backbone stays as it is.',
        ),
      ),
      form,
      h('section', { class: 'card stack', 'aria-label': 'Progress' }, curve.element, figures, status),
      adapterList(bench),
    ),
  }
}

/** The adapters of this page: to download, to take away, and to open one from a file. */
function adapterList(bench: Bench): HTMLElement {
  const list = h('ul', { class: 'adapters' })
  const message = h('div', { role: 'status' })
  const input = h('input', {
    ...{ type: 'file', multiple: true, accept: '.zip,.safetensors,.json', class: 'hidden-text', tabindex: -1 },
    ...{ 'aria-label': 'Adapter files', onchange: () => void open() },
  })
  const open = async () => {
    const files = [...(input.files ?? [])]
    input.value = ''
    if (files.length > 0) await bench.run(() => openAdapter(bench, files, message))
  }
  const pick = h('button', { class: 'button', onclick: () => input.click() }, icons.upload(), 'Open an adapter')
  bench.onChange(() => {
    pick.disabled = bench.busy
    list.replaceChildren(...bench.own.map((adapter) => row(bench, adapter)))
    list.hidden = bench.own.length === 0
  })
  return h(
    'section',
    { class: 'stack tight' },
    h('h2', {}, 'Your adapters'),
    h(
      'p',
      { class: 'hint' },
      'In the layout of PEFT: one .zip, or adapter_model.safetensors with adapter_config.json.',
    ),
    list,
    message,
    h('div', { class: 'buttons' }, pick, input),
  )
}

function row(bench: Bench, { name, origin, zip }: OwnAdapter): HTMLElement {
  const button = (title: string, click: () => void, disabled = false, ...children: Node[]) =>
    h(
      'button',
      { class: 'button small', onclick: click, disabled, 'aria-label': `${title} ${name}` },
      ...children,
      title,
    )
  return h(
    'li',
    {},
    h('span', { class: 'chip accent' }, name),
    h('span', { class: 'hint' }, `${origin} here, ${byteSize(zip.length)}`),
    h(
      'div',
      { class: 'buttons' },
      button('Download', () => saveFile(`${name}.zip`, zip, 'application/zip'), false, icons.download()),
      button('Remove', () => void bench.remove(name), bench.busy),
    ),
  )
}

async function openAdapter(bench: Bench, files: readonly File[], message: HTMLElement): Promise<void> {
  try {
    const read: AdapterFile = await readAdapterFiles(files)
    let { name } = read
    for (let i = 2; bench.model.capabilities.includes(name) || bench.model.manifest.capabilities[name]; i++)
      name = `${read.name}-${i}`
    await bench.model.addAdapter(name, read.zip)
    bench.keep({ name, origin: 'opened', zip: read.zip })
    message.replaceChildren(h('p', {}, h('strong', {}, name), ' is among the adapters now.'))
  } catch (error) {
    message.replaceChildren(fault(error))
  }
}

function fault(error: unknown): HTMLElement {
  return h('p', { class: 'fault', role: 'alert' }, sentenceOf(error))
}
