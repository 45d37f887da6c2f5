import { GpuError } from '../core/errors.ts'
import { resting } from './rest.ts'

/** How to find a GPU. */
export interface GpuRootOptions {
  /**
   * `auto` takes a discrete GPU before an integrated one before software; `software` takes the software GPU; any other
   * text takes the adapter whose name contains it. The environment variable NEXUS_ADAPTER says the same.
   */
  readonly adapter?: string
  /** Keeps the bounds checks that trusted kernels do not need. */
  readonly robust?: boolean
  /** Whether a software GPU may be installed where there is no GPU at all; true unless told. */
  readonly install?: boolean
  /** Tells the person about long or surprising things. */
  readonly say?: (line: string) => void
}

/** A GPU that was found. */
export interface GpuRoot {
  readonly gpu: GPU
  readonly adapter: GPUAdapter
  /** What the adapter calls itself. */
  readonly name: string
  /** Whether it runs on the processor. */
  readonly software: boolean
  /** Waits for the GPU, where waiting needs more than `await`: see {@link resting}. */
  readonly rest?: <T>(work: Promise<T>) => Promise<T>
}

// Dawn's root objects, kept for the life of the process: collected while a device lives, they take it down.
const roots: GPU[] = []

const trusted = ['disable_robustness', 'disable_workgroup_init', 'disable_polyfills_on_integer_div_and_mod']

/** The toggles that Dawn is started with in Node, as it names them. */
export function dawnToggles(robust: boolean): { enabled: readonly string[]; disabled: readonly string[] } {
  return { enabled: ['allow_unsafe_apis', ...(robust ? [] : trusted)], disabled: ['timestamp_quantization'] }
}

async function dawn(robust: boolean): Promise<GPU> {
  const { create, globals } = await import('webgpu')
  Object.assign(globalThis, globals)
  const { enabled, disabled } = dawnToggles(robust)
  const gpu = create([`enable-dawn-features=${enabled.join(',')}`, `disable-dawn-features=${disabled.join(',')}`])
  roots.push(gpu)
  return gpu
}

/**
 * Finds a GPU: `navigator.gpu` in a browser, Dawn in Node. Where Node finds none, it turns to the software GPU.
 * @throws GpuError with the one command to run, when there is none and none may be installed.
 */
export async function openGpuRoot(options: GpuRootOptions = {}): Promise<GpuRoot> {
  if (typeof navigator !== 'undefined' && navigator.gpu) return take(navigator.gpu, 'auto')
  const wanted = options.adapter ?? process.env.NEXUS_ADAPTER ?? 'auto'
  const software = await import('./software-gpu.ts')
  const seen: string[] = []
  // Without a device node there is nothing to ask, and the drivers would only complain; a driver that the environment
  // names is asked all the same.
  const named = process.env.VK_ICD_FILENAMES ?? process.env.VK_DRIVER_FILES
  if (wanted !== 'software' && (named || software.hasHardware())) {
    const gpu = await dawn(options.robust ?? false)
    const found = await tryTake(gpu, wanted)
    if (found) return found
    for (const adapter of await listAdapters(gpu)) seen.push(adapterName(adapter.info))
  }
  return openSoftware(wanted === 'software' ? 'auto' : wanted, seen, options)
}

/** @param seen names of the adapters that were found and not wanted. */
async function openSoftware(wanted: string, seen: string[], options: GpuRootOptions): Promise<GpuRoot> {
  const { install = true, say = toStderr } = options
  const { installHint, installSoftwareDriver } = await import('./apt.ts')
  const faults: GpuError[] = []
  const there = await startSoftware(wanted, seen, faults, options)
  if (there) return there
  if (faults.length === 0 && wanted !== 'auto')
    throw new GpuError(`No adapter is named like ${JSON.stringify(wanted)}; there is ${seen.join(', ') || 'none'}`)
  if (faults.length === 0 && !install) throw new GpuError(`No GPU was found. ${installHint}`)
  if (faults.length > 0) throw faults[0]
  // No driver, or one that a browser brought without the Vulkan loader.
  await installSoftwareDriver({ say })
  const installed = await startSoftware(wanted, seen, faults, options)
  if (installed) return installed
  throw faults[0] ?? new GpuError(`The software GPU is installed but does not start. ${installHint}`)
}

/** The first of the software drivers that starts. @param faults why others could not be prepared. */
async function startSoftware(
  wanted: string,
  seen: string[],
  faults: GpuError[],
  { robust = false, install = true, say = toStderr }: GpuRootOptions,
): Promise<GpuRoot | undefined> {
  const software = await import('./software-gpu.ts')
  for (const driver of software.findSoftwareDrivers()) {
    try {
      // Old lavapipe: Dawn wants two image features of it that no kernel here uses; the layer announces them.
      const environment = await software.prepareSoftwareDriver(driver, { install, say })
      for (const name of ['VK_LAYER_PATH', 'VK_INSTANCE_LAYERS']) delete process.env[name]
      Object.assign(process.env, environment)
    } catch (error) {
      if (!(error instanceof GpuError)) throw error
      faults.push(error)
      continue
    }
    const gpu = await dawn(robust)
    // People call it lavapipe, the driver calls itself llvmpipe.
    const found = await tryTake(gpu, driver.name === wanted.toLowerCase() ? 'auto' : wanted)
    if (found) return found
    for (const adapter of await listAdapters(gpu)) seen.push(adapterName(adapter.info))
  }
  return undefined
}

function toStderr(line: string): void {
  console.error(line)
}

async function tryTake(gpu: GPU, wanted: string): Promise<GpuRoot | undefined> {
  try {
    const root = await take(gpu, wanted)
    return root.software ? { ...root, rest: resting } : root
  } catch (error) {
    if (error instanceof GpuError) return undefined
    throw error
  }
}

async function take(gpu: GPU, wanted: string): Promise<GpuRoot> {
  const adapters = await listAdapters(gpu)
  const matching = adapters.filter(
    ({ info }) => wanted === 'auto' || adapterName(info).toLowerCase().includes(wanted.toLowerCase()),
  )
  const adapter = matching.sort((a, b) => rank(a) - rank(b))[0]
  if (!adapter) throw new GpuError('This system offers no WebGPU adapter')
  return { gpu, adapter, name: adapterName(adapter.info), software: isSoftware(adapter) }
}

/** The adapters that a root offers, without repeats. */
export async function listAdapters(gpu: GPU): Promise<GPUAdapter[]> {
  const requests: GPURequestAdapterOptions[] = [
    { powerPreference: 'high-performance' },
    {},
    { powerPreference: 'low-power' },
    { forceFallbackAdapter: true },
  ]
  const byName = new Map<string, GPUAdapter>()
  for (const request of requests) {
    const adapter = await gpu.requestAdapter(request)
    if (adapter && !byName.has(adapterName(adapter.info))) byName.set(adapterName(adapter.info), adapter)
  }
  return [...byName.values()]
}

/** What an adapter calls itself. */
export function adapterName(info: GPUAdapterInfo): string {
  return (
    info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(' ') || 'unnamed adapter'
  )
}

/** Whether an adapter runs on the processor. */
export function isSoftware(adapter: GPUAdapter): boolean {
  return adapter.info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software/i.test(adapterName(adapter.info))
}

/** Smaller is better: hardware first; Dawn puts a discrete GPU first among those it was asked for. */
function rank(adapter: GPUAdapter): number {
  return isSoftware(adapter) ? 1 : 0
}
