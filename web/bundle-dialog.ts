import { count, field, h, icons } from './dom.ts'
import type { PlaygroundModel } from './model.ts'

const signatures = {
  none: 'It is not signed: it is whole, but anyone may have made it.',
  unchecked: 'It is signed. Give the public key of whoever you have it from to know that it is theirs.',
  valid: 'The signature is that of the key you gave.',
  invalid: 'The signature is not valid.',
}

/** What was checked of the bundle, in words for a person, by the names of the checks. */
const explained: Readonly<Record<string, string>> = {
  manifest: 'The manifest is well-formed and in its one canonical spelling',
  names: 'No file name leads out of the bundle or looks like another',
  'allow-list': 'Every file is listed, and nothing else is there',
  sizes: 'Every file has the size that the manifest says',
  signature: 'The signature, where there is one, is sound',
  hashes: 'Every file has the sha256 that the manifest says',
  'adapters belong to the backbone': 'Each adapter was made for this backbone',
  report: 'Measured scores and claimed scores are the same',
  weights: 'The weights hold the expected tensors and nothing more',
  'teacher-free': 'No trace of the large model it came from, and none of its making',
}

/** The badge that says that the bundle was verified, and the dialog that says what that means. */
export function bundleBadge(model: PlaygroundModel, giveKey: (pem: string) => void): HTMLElement {
  const { report, manifest } = model
  const { model_metadata: metadata } = manifest
  const signed = report.signature === 'valid'
  const dialog = h('dialog', { 'aria-labelledby': 'bundle-title' })
  const close = h(
    'button',
    { class: 'button small', 'aria-label': 'Close', onclick: () => dialog.close() },
    icons.close(),
  )
  const key = h('input', { type: 'file', accept: '.pub,.pem' })
  key.addEventListener('change', async () => {
    const pem = await key.files?.[0]?.text()
    if (!pem) return
    dialog.close()
    giveKey(pem)
  })
  const fact = (title: string, value: string) => [h('dt', {}, title), h('dd', {}, value)]
  dialog.append(
    h(
      'div',
      { class: 'dialog' },
      h(
        'div',
        { class: 'dialog-top' },
        h('h2', { id: 'bundle-title' }, signed ? 'Verified and signed' : 'Verified'),
        close,
      ),
      h(
        'ul',
        { class: 'checks' },
        ...report.checks.map(({ name }) => h('li', {}, icons.check(), h('span', {}, explained[name] ?? name))),
      ),
      h('p', {}, signatures[report.signature]),
      report.notes.some(isNews) &&
        h('ul', { class: 'notes' }, ...report.notes.filter(isNews).map((note) => h('li', {}, note))),
      h(
        'dl',
        { class: 'facts' },
        ...fact(
          'Backbone',
          `${metadata.architecture}, ${count(metadata.backbone_parameters)} parameters, ${metadata.storage}`,
        ),
        ...fact('Of the original', `${(100 * metadata.backbone_ratio).toFixed(1)} % of the parameters`),
        ...fact('Built', `${manifest.build_timestamp.slice(0, 10)}, Nexus ${manifest.tool_version}`),
        ...fact('Bundle', manifest.bundle_id.slice(0, 16)),
      ),
      report.signature !== 'none' && !signed && field('Public key', key, 'Loads the bundle again and checks it.'),
    ),
  )
  return h(
    'div',
    {},
    h(
      'button',
      { class: 'badge', 'aria-haspopup': 'dialog', onclick: () => dialog.showModal() },
      icons.check(),
      signed ? 'Verified, signed' : 'Verified',
    ),
    dialog,
  )
}

/** The notes on the signature are said in words of the page. */
function isNews(note: string): boolean {
  return !/^The bundle is (not )?signed/.test(note)
}
