import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GpuError } from '../core/errors.ts'
import { compilerPackages, type InstallOptions, installCommand, installPackages, reasonOf } from './apt.ts'
import { cachePath } from './cache.ts'

// A GPU in software: Mesa's lavapipe, or Chromium's SwiftShader. On a machine without a GPU, Nexus sets one up by
// itself where it may, and says in one line what to do where it may not.

/** A driver that runs Vulkan on the processor. */
export interface SoftwareDriver {
  readonly name: 'lavapipe' | 'swiftshader'
  /** Its manifest for the Vulkan loader. */
  readonly manifest: string
}

/** Where drivers are looked for. */
export interface DriverPlaces {
  /** Folder of the Vulkan loader's manifests. */
  readonly manifests?: string
  /** SwiftShader's manifest. */
  readonly swiftshader?: string
}

const sources = join(import.meta.dirname, '../../tools/software-gpu')

/** The software drivers that are installed, lavapipe first: it has f16. */
export function findSoftwareDrivers({
  manifests = '/usr/share/vulkan/icd.d',
  swiftshader = '/usr/lib/chromium/vk_swiftshader_icd.json',
}: DriverPlaces = {}): SoftwareDriver[] {
  const names = existsSync(manifests) ? readdirSync(manifests).filter((name) => /^lvp_icd.*\.json$/.test(name)) : []
  // Where drivers for two processors are installed, this one's comes first.
  const processor = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const file = names.find((name) => name.includes(processor)) ?? names[0]
  const drivers: SoftwareDriver[] = file ? [{ name: 'lavapipe', manifest: join(manifests, file) }] : []
  return existsSync(swiftshader) ? [...drivers, { name: 'swiftshader', manifest: swiftshader }] : drivers
}

/** Whether there is a device that a GPU driver could open: a render node, NVIDIA's or Windows' under WSL. */
export function hasHardware(): boolean {
  if (process.platform !== 'linux') return true
  const renderNodes = existsSync('/dev/dri') && readdirSync('/dev/dri').some((name) => name.startsWith('renderD'))
  return renderNodes || existsSync('/dev/nvidiactl') || existsSync('/dev/dxg')
}

/** Whether Dawn refuses `driver` as it is: lavapipe before Mesa 23, which announces Vulkan 1.3.238 or newer. */
export function needsLayer(driver: SoftwareDriver): boolean {
  if (driver.name !== 'lavapipe') return false
  const version = /"api_version":\s*"1\.(\d+)\.(\d+)"/.exec(readFileSync(driver.manifest, 'utf8'))
  return version !== null && Number(version[1]) * 1000 + Number(version[2]) < 3238
}

function writeSynced(path: string, bytes: Uint8Array): void {
  writeFileSync(path, bytes)
  sync(path)
}

function sync(path: string): void {
  const file = openSync(path, 'r')
  fsyncSync(file)
  closeSync(file)
}

/**
 * Builds the layer that lets Dawn accept lavapipe from before Mesa 23, unless it was built from the same source before.
 * Processes that build at the same time do not disturb each other: whoever is second takes what the first one made.
 * @returns the folder that holds it with its manifest.
 * @throws GpuError when there is no C compiler or no Vulkan header.
 */
export function buildLayer(cache = cachePath('software-gpu')): string {
  if (!existsSync(sources))
    throw new GpuError('The software driver is old and needs a small layer that is not here. Run: npx nexus doctor')
  const source = readFileSync(join(sources, 'lavapipe-layer.c'))
  const manifest = readFileSync(join(sources, 'lavapipe-layer.json'))
  const hash = createHash('sha256').update(source).update(manifest).digest('hex').slice(0, 16)
  const folder = join(cache, hash)
  if (existsSync(folder)) return folder
  let part: string | undefined
  try {
    mkdirSync(cache, { recursive: true })
    part = mkdtempSync(join(cache, 'part-'))
    const library = join(part, 'libVkLayer_nexus_lavapipe.so')
    const flags = ['-O2', '-shared', '-fPIC', '-fvisibility=hidden']
    execFileSync('gcc', [...flags, '-o', library, join(sources, 'lavapipe-layer.c')], { stdio: 'pipe' })
    sync(library)
    writeSynced(join(part, 'lavapipe-layer.json'), manifest)
    renameSync(part, folder)
    sync(cache)
  } catch (error) {
    if (part) rmSync(part, { recursive: true, force: true })
    if (existsSync(folder)) return folder // another process was quicker
    throw new GpuError(
      `Cannot build the layer that the old software driver needs: ${reasonOf(error)}. ` +
        `Run: ${installCommand(compilerPackages)}`,
    )
  }
  return folder
}

/**
 * Makes `driver` ready: builds the layer where the driver needs it, after installing a C compiler where that is missing
 * and may be installed.
 * @returns the environment under which the Vulkan loader sees this driver alone.
 * @throws GpuError when the layer cannot be built.
 */
export async function prepareSoftwareDriver(
  driver: SoftwareDriver,
  { install = true, ...options }: InstallOptions & { install?: boolean } = {},
): Promise<Record<string, string>> {
  const environment: Record<string, string> = {
    VK_ICD_FILENAMES: driver.manifest,
    NODEVICE_SELECT: '1',
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(), // the driver warns without it
  }
  if (!needsLayer(driver)) return environment
  let folder: string
  try {
    folder = buildLayer()
  } catch (error) {
    if (!install || !(error instanceof GpuError)) throw error
    await installPackages(compilerPackages, `The driver ${driver.name} is old and needs a small layer.`, options)
    folder = buildLayer()
  }
  return { ...environment, VK_LAYER_PATH: folder, VK_INSTANCE_LAYERS: 'VK_LAYER_NEXUS_lavapipe' }
}
