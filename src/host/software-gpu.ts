import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { GpuError, messageOf } from '../core/errors.ts'

// A GPU in software: Mesa's lavapipe, or Chromium's SwiftShader. On a machine without a GPU, Nexus sets one up by
// itself where it may, and says in one line what to do where it may not.

/** A driver that runs Vulkan on the processor. */
export interface SoftwareDriver {
  readonly name: 'lavapipe' | 'swiftshader'
  /** Its manifest for the Vulkan loader. */
  readonly manifest: string
}

const lavapipeManifests = '/usr/share/vulkan/icd.d'
const swiftshaderManifest = '/usr/lib/chromium/vk_swiftshader_icd.json'
const sources = join(import.meta.dirname, '../../tools/software-gpu')

/** The software driver that is installed, lavapipe first: it has f16. */
export function findSoftwareDriver(
  folder = lavapipeManifests,
  swiftshader = swiftshaderManifest,
): SoftwareDriver | undefined {
  const file = existsSync(folder) ? readdirSync(folder).find((name) => /^lvp_icd.*\.json$/.test(name)) : undefined
  if (file) return { name: 'lavapipe', manifest: join(folder, file) }
  return existsSync(swiftshader) ? { name: 'swiftshader', manifest: swiftshader } : undefined
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

/** Where built layers are kept. */
function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'nexus', 'software-gpu')
}

/**
 * Builds the layer that lets Dawn accept lavapipe from before Mesa 23, unless it was built before.
 * @returns the folder that holds it with its manifest.
 * @throws GpuError when there is no C compiler or no Vulkan header.
 */
export function buildLayer(cache = cacheFolder()): string {
  const source = readFileSync(join(sources, 'lavapipe-layer.c'))
  const manifest = readFileSync(join(sources, 'lavapipe-layer.json'))
  const hash = createHash('sha256').update(source).update(manifest).digest('hex').slice(0, 16)
  const folder = join(cache, hash)
  if (existsSync(folder)) return folder
  const part = `${folder}.${process.pid}.part`
  mkdirSync(part, { recursive: true })
  try {
    const library = join(part, 'libVkLayer_nexus_lavapipe.so')
    const flags = ['-O2', '-shared', '-fPIC', '-fvisibility=hidden']
    execFileSync('gcc', [...flags, '-o', library, join(sources, 'lavapipe-layer.c')], { stdio: 'pipe' })
    writeFileSync(join(part, 'lavapipe-layer.json'), manifest)
    renameSync(part, folder)
  } catch (error) {
    rmSync(part, { recursive: true, force: true })
    if (existsSync(folder)) return folder // another process was quicker
    throw new GpuError(
      `Cannot build the layer that the old software driver needs (${messageOf(error).split('\n')[0]}). ` +
        `Run: ${installCommand(['libvulkan-dev', 'gcc', 'libc6-dev'])}`,
    )
  }
  return folder
}

/** Points the Vulkan loader of this process, and of all it starts, at `driver` alone. */
export function useSoftwareDriver(driver: SoftwareDriver, layerFolder?: string): void {
  process.env.VK_ICD_FILENAMES = driver.manifest
  process.env.NODEVICE_SELECT = '1'
  process.env.XDG_RUNTIME_DIR ??= tmpdir() // the driver warns without it
  if (!layerFolder) return
  process.env.VK_LAYER_PATH = layerFolder
  process.env.VK_INSTANCE_LAYERS = 'VK_LAYER_NEXUS_lavapipe'
}

const driverPackages = ['mesa-vulkan-drivers', 'libvulkan1', 'libvulkan-dev', 'gcc', 'libc6-dev']

function installCommand(packages: readonly string[]): string {
  const install = `apt-get install -y --no-install-recommends ${packages.join(' ')}`
  return process.getuid?.() === 0 ? `apt-get update && ${install}` : `sudo sh -c 'apt-get update && ${install}'`
}

/** What to run where {@link installSoftwareDriver} may not. */
export const installHint = `Install a software GPU with: ${installCommand(driverPackages)}`

/**
 * Installs lavapipe: as root on a system with apt-get, after asking when someone is at the terminal.
 * @param say tells the person what happens.
 * @throws GpuError with the one command to run, when it may not or does not work.
 */
export async function installSoftwareDriver(say: (line: string) => void): Promise<void> {
  const root = process.getuid?.() === 0
  const apt = process.platform === 'linux' && existsSync('/usr/bin/apt-get')
  if (!root || !apt)
    throw new GpuError(
      apt
        ? `No GPU was found. ${installHint}`
        : 'No GPU was found. Install a Vulkan driver for your GPU, or Mesa with its software driver lavapipe.',
    )
  say('No GPU was found. Nexus can run on a GPU in software: Mesa lavapipe, from the Debian packages')
  say(`  ${driverPackages.join(' ')}`)
  if (process.stdin.isTTY) {
    const ask = createInterface({ input: process.stdin, output: process.stderr })
    const answer = await ask.question('Install them now? [Y/n] ').finally(() => ask.close())
    if (/^n/i.test(answer.trim())) throw new GpuError(`No GPU was found. ${installHint}`)
  }
  say('Installing them now; this takes about a minute.')
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  try {
    execFileSync('apt-get', ['update', '-qq'], { stdio: 'pipe', env })
    execFileSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...driverPackages], {
      stdio: 'pipe',
      env,
    })
  } catch (error) {
    throw new GpuError(`Cannot install the software GPU (${messageOf(error).split('\n')[0]}). ${installHint}`)
  }
}
