import type { PlacedFile } from '../src/bundle/source.ts'
import type { Progress } from '../src/core/progress.ts'
import { field, h, icons } from './dom.ts'
import type { PageSource } from './model.ts'

/** Where a person picks a bundle. @param fault why the last one did not open. */
export function openView(open: (source: PageSource, name: string) => void, fault?: HTMLElement): HTMLElement {
  const folder = h('input', {
    type: 'file',
    webkitdirectory: true,
    class: 'hidden-text',
    tabindex: -1,
    'aria-label': 'Folder of a bundle',
  })
  const archive = h('input', {
    type: 'file',
    accept: '.zip',
    class: 'hidden-text',
    tabindex: -1,
    'aria-label': 'Archive of a bundle',
  })
  folder.addEventListener('change', () => {
    const files = [...(folder.files ?? [])]
    if (files.length > 0) open(files, files[0].webkitRelativePath.split('/')[0])
  })
  archive.addEventListener('change', () => {
    const file = archive.files?.[0]
    if (file) open(file, file.name)
  })
  const pickFolder = async () => {
    const picker = (globalThis as { showDirectoryPicker?: () => Promise<FileSystemDirectoryHandle> })
      .showDirectoryPicker
    if (!picker) {
      folder.click()
      return
    }
    // Nothing happens when the person turns the picker away.
    const handle = await picker.call(globalThis).catch(() => undefined)
    if (handle) open(handle, handle.name)
  }
  const address = h('input', {
    type: 'text',
    placeholder: 'nexus_bundle_v1/ or bundle.zip',
    autocomplete: 'off',
    spellcheck: 'false',
  })
  const problem = h('div', { role: 'alert' })
  const openAddress = (event: Event) => {
    event.preventDefault()
    const url = URL.parse(address.value.trim() || '.', document.baseURI)
    if (url?.origin === location.origin) open(url, address.value.trim())
    else
      problem.replaceChildren(
        h(
          'p',
          { class: 'fault' },
          'This page asks no other host for anything. Download the bundle, then open its folder or .zip here.',
        ),
      )
  }
  const area = h(
    'div',
    { class: 'drop' },
    h('h1', {}, 'Open a bundle'),
    h(
      'p',
      { class: 'lead' },
      'Drop its folder or .zip here. It is checked, then it runs on your GPU; nothing leaves this machine.',
    ),
    h(
      'div',
      { class: 'buttons' },
      h('button', { class: 'button primary', onclick: () => void pickFolder() }, icons.folder(), 'Choose a folder'),
      h('button', { class: 'button', onclick: () => archive.click() }, icons.archive(), 'Choose a .zip'),
    ),
    folder,
    archive,
  )
  acceptDrops(area, open, problem)
  return h(
    'div',
    { class: 'opening stack' },
    fault,
    area,
    h(
      'form',
      { class: 'stack tight', onsubmit: openAddress },
      h(
        'div',
        { class: 'row' },
        field('Or an address on this host', address),
        h('button', { class: 'button' }, 'Open'),
      ),
      problem,
    ),
  )
}

function acceptDrops(area: HTMLElement, open: (source: PageSource, name: string) => void, problem: HTMLElement): void {
  const over = (on: boolean) => (event: DragEvent) => {
    event.preventDefault()
    area.classList.toggle('over', on)
  }
  area.addEventListener('dragenter', over(true))
  area.addEventListener('dragover', over(true))
  area.addEventListener('dragleave', over(false))
  area.addEventListener('drop', async (event) => {
    over(false)(event)
    const item = [...(event.dataTransfer?.items ?? [])].find(({ kind }) => kind === 'file')
    const entry = item?.webkitGetAsEntry()
    const file = item?.getAsFile()
    if (entry?.isDirectory) open(await filesBelow(entry as FileSystemDirectoryEntry), entry.name)
    else if (file && /\.zip$/i.test(file.name)) open(file, file.name)
    else problem.replaceChildren(h('p', { class: 'fault' }, 'Drop the folder of a bundle, or its .zip.'))
  })
}

/** The files of a dropped folder, with their paths in it. */
async function filesBelow(folder: FileSystemDirectoryEntry, prefix = ''): Promise<PlacedFile[]> {
  const reader = folder.createReader()
  const found: PlacedFile[] = []
  for (;;) {
    // A reader gives a hundred entries at a time.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (entries.length === 0) return found
    for (const entry of entries) {
      const path = prefix + entry.name
      if (entry.isDirectory) found.push(...(await filesBelow(entry as FileSystemDirectoryEntry, `${path}/`)))
      else {
        const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))
        found.push({ path, file })
      }
    }
  }
}

/** How far the loading of a bundle is. */
export function loadingView(
  name: string,
  cancel: () => void,
): { element: HTMLElement; show: (progress: Progress) => void } {
  const bar = h('progress', { 'aria-label': 'Loading' })
  const task = h('span', {}, 'Opening …')
  const figures = h('span', { class: 'muted' })
  const status = h('p', { class: 'hidden-text', role: 'status' })
  return {
    element: h(
      'div',
      { class: 'opening stack' },
      h('h1', {}, 'Loading ', name),
      h('div', { class: 'stack tight' }, bar, h('div', { class: 'progress-line' }, task, figures), status),
      h('div', { class: 'buttons' }, h('button', { class: 'button', onclick: cancel }, 'Cancel')),
    ),
    show({ task: what, done, total, unit }) {
      if (task.textContent !== `${what} …`) status.textContent = what
      task.textContent = `${what} …`
      bar.max = Math.max(total, 1e-9)
      bar.value = done
      figures.textContent = `${done.toLocaleString('en')} of ${total.toLocaleString('en')} ${unit}`
    },
  }
}
