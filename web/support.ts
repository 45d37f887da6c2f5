import { h } from './dom.ts'

/** Where WebGPU is, browser by browser, and what to do where it is not. */
interface Cure {
  readonly browser: string
  readonly test: (agent: string) => boolean
  readonly advice: string
}

const cures: readonly Cure[] = [
  {
    browser: 'Chrome, Edge',
    test: (agent) => /Chrome\/|Edg\//.test(agent) && !/Android|Linux/.test(agent),
    advice:
      'Version 113 or later on Windows, macOS and ChromeOS. Turn on “graphics acceleration” in the settings under System.',
  },
  {
    browser: 'Chrome on Linux',
    test: (agent) => /Chrome\//.test(agent) && /Linux/.test(agent) && !/Android/.test(agent),
    advice:
      'Version 144 or later has it on newer GPUs. Elsewhere start it with --enable-unsafe-webgpu --enable-features=Vulkan, or set both flags in chrome://flags.',
  },
  {
    browser: 'Chrome on Android',
    test: (agent) => /Chrome\//.test(agent) && /Android/.test(agent),
    advice: 'Version 121 or later, on Android 12 or later.',
  },
  {
    browser: 'Firefox',
    test: (agent) => /Firefox\//.test(agent),
    advice:
      'Version 141 or later on Windows, 145 or later on Macs with Apple’s chips. Elsewhere set dom.webgpu.enabled to true in about:config (Nightly on Linux).',
  },
  {
    browser: 'Safari',
    test: (agent) => /Safari\//.test(agent) && !/Chrome\/|Chromium\/|Firefox\//.test(agent),
    advice: 'Version 26 or later, on macOS, iOS, iPadOS and visionOS 26. Before: Develop, Feature Flags, WebGPU.',
  },
]

/** Why a page cannot use WebGPU: it is not served safely, the browser has none, or it has no GPU to offer. */
export type WebGpuFault = 'insecure' | 'missing' | 'no adapter'

/** What is wrong with WebGPU here, or nothing. */
export async function findWebGpuFault(): Promise<WebGpuFault | undefined> {
  if (!isSecureContext) return 'insecure'
  if (!navigator.gpu) return 'missing'
  const adapter =
    (await navigator.gpu.requestAdapter().catch(() => null)) ??
    (await navigator.gpu.requestAdapter({ forceFallbackAdapter: true }).catch(() => null))
  return adapter ? undefined : 'no adapter'
}

const titles: Readonly<Record<WebGpuFault, [title: string, lead: string]>> = {
  insecure: [
    'This page needs a safe address',
    'Browsers offer WebGPU only over https, and to pages of this machine. Open it with https://, or as http://localhost.',
  ],
  missing: [
    'This browser has no WebGPU',
    'The model runs on your GPU, in the page, and that takes WebGPU. Here is where it is:',
  ],
  'no adapter': [
    'The browser found no GPU',
    'It knows WebGPU, but was given no GPU. Update the graphics driver and the browser, and look here for your browser:',
  ],
}

/** The page for a browser that cannot run a model, with the cure; that of this browser stands out. */
export function webGpuPage(fault: WebGpuFault, retry: () => void): HTMLElement {
  const [title, lead] = titles[fault]
  const items = cures.map(({ browser, test, advice }) => {
    const yours = test(navigator.userAgent)
    return h(
      'li',
      { class: yours ? 'yours' : undefined },
      h('strong', {}, browser, yours && h('span', { class: 'hidden-text' }, ' (this browser)')),
      h('span', {}, advice),
    )
  })
  return h(
    'div',
    { class: 'opening stack' },
    h('h1', {}, title),
    h('p', { class: 'lead' }, lead),
    fault !== 'insecure' && h('ul', { class: 'cures' }, ...items),
    h('div', { class: 'buttons' }, h('button', { class: 'button', onclick: retry }, 'Try again')),
  )
}
