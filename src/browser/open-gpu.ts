import { GpuError } from '../core/errors.ts'

/** There is no WebGPU here; the message says why, {@link NoWebGpuError.cure} what a person can do in this browser. */
export class NoWebGpuError extends GpuError {
  override readonly name = 'NoWebGpuError'
  /** What to do, in sentences for a person. */
  readonly cure: string

  constructor(reason: string, cure: string) {
    super(`${reason} ${cure}`)
    this.cure = cure
  }
}

/** An adapter of the browser. */
export interface BrowserGpuRoot {
  readonly gpu: GPU
  readonly adapter: GPUAdapter
  readonly name: string
  readonly software: boolean
}

/**
 * The browser's GPU.
 * @throws NoWebGpuError with the cure for this browser.
 */
export async function openGpuRoot(): Promise<BrowserGpuRoot> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu
  if (!gpu) {
    if (globalThis.isSecureContext === false)
      throw new NoWebGpuError(
        'This page was not loaded securely, and browsers give WebGPU to secure pages only.',
        'Open it over https://, or from http://localhost.',
      )
    throw new NoWebGpuError('This browser has no WebGPU.', cureFor(globalThis.navigator?.userAgent ?? ''))
  }
  const adapter = (await gpu.requestAdapter({ powerPreference: 'high-performance' })) ?? (await gpu.requestAdapter())
  if (!adapter)
    throw new NoWebGpuError(
      'This browser has WebGPU, but it offers no GPU.',
      cureFor(globalThis.navigator?.userAgent ?? '', true),
    )
  const { description, vendor, architecture, device } = adapter.info
  const name = description || [vendor, architecture, device].filter(Boolean).join(' ') || 'unnamed adapter'
  return { gpu, adapter, name, software: adapter.info.isFallbackAdapter || /swiftshader|llvmpipe|software/i.test(name) }
}

/**
 * What a person can do to get WebGPU.
 * @param agent what the browser calls itself.
 * @param blocked whether the browser knows WebGPU and keeps the GPU from it.
 */
export function cureFor(agent: string, blocked = false): string {
  const system = /Android/.test(agent) ? 'android' : /Linux|X11/.test(agent) ? 'linux' : 'other'
  if (/Firefox\//.test(agent))
    return system === 'other'
      ? 'Update Firefox to 141 or newer on Windows, or 145 or newer on a Mac; or use Chrome or Edge.'
      : 'Use Chrome or Chromium here; or Firefox Nightly with dom.webgpu.enabled set in about:config.'
  if (/iPhone|iPad/.test(agent)) return 'Update to iOS 26 or newer: every browser there uses Safari’s engine.'
  if (/Safari\//.test(agent) && !/Chrom(e|ium)\//.test(agent))
    return 'Update to Safari 26 or newer (macOS Tahoe), or use Chrome.'
  if (system === 'android') return 'Use Chrome 121 or newer on Android 12 or newer.'
  if (system === 'linux')
    return blocked
      ? 'Start the browser with --enable-unsafe-webgpu --enable-features=Vulkan; without a GPU add --use-webgpu-adapter=swiftshader.'
      : 'Update the browser, and start it with --enable-unsafe-webgpu --enable-features=Vulkan.'
  return blocked
    ? 'Turn on hardware acceleration in the browser’s settings (System), update the graphics driver, and look at chrome://gpu.'
    : 'Use Chrome or Edge 113 or newer, Safari 26 or newer, or Firefox 141 or newer.'
}
