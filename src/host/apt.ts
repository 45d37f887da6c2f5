import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { GpuError, messageOf } from '../core/errors.ts'

/** Debian's packages of the software GPU. */
export const driverPackages: readonly string[] = ['mesa-vulkan-drivers', 'libvulkan1']

/** Debian's packages that build the layer for a driver from before Mesa 23. */
export const compilerPackages: readonly string[] = ['libvulkan-dev', 'gcc', 'libc6-dev']

/** Who installs, and how it is told. */
export interface InstallOptions {
  /** Tells the person what happens; on stderr unless told. */
  readonly say?: (line: string) => void
  /** Whether this process may install; what the system says unless told. */
  readonly root?: boolean
  /** Whether someone is there to be asked; what stdin says unless told. */
  readonly terminal?: boolean
}

const isRoot = () => process.getuid?.() === 0

/** The one command that installs `packages` by hand. */
export function installCommand(packages: readonly string[], root = isRoot()): string {
  const install = `apt-get install -y --no-install-recommends ${packages.join(' ')}`
  return root ? `apt-get update && ${install}` : `sudo sh -c 'apt-get update && ${install}'`
}

/** What to run where no GPU was found and none may be installed. */
export const installHint = `Install a software GPU with: ${installCommand([...driverPackages, ...compilerPackages])}`

/** Why a command failed, in one line: what it said itself, before what Node says of it. */
export function reasonOf(error: unknown): string {
  const { code, path, stderr } = error as { code?: string; path?: string; stderr?: Buffer | null }
  if (code === 'ENOENT' && path) return `${path} is not installed`
  const lines = (stderr?.toString() ?? '').split('\n').filter((line) => line.trim())
  return lines.find((line) => /^E: |error/.test(line)) ?? lines[0] ?? messageOf(error).split('\n')[0]
}

function apt(command: string, args: readonly string[]): string {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  return execFileSync(command, args, { stdio: 'pipe', env, encoding: 'utf8' })
}

/**
 * Installs `packages` as root on a system with apt-get, after asking when someone is at the terminal.
 * @param why one sentence for the person: what is missing.
 * @throws GpuError with the one command to run, when it may not or does not work.
 */
export async function installPackages(
  packages: readonly string[] | (() => readonly string[]),
  why: string,
  { say = console.error, root = isRoot(), terminal = process.stdin.isTTY }: InstallOptions,
): Promise<void> {
  const all = typeof packages === 'function' ? [...driverPackages, ...compilerPackages] : packages
  const byHand = `Run: ${installCommand(all, root)}`
  if (process.platform !== 'linux' || !existsSync('/usr/bin/apt-get'))
    throw new GpuError(`${why} Install a Vulkan driver for your GPU, or Mesa with its software driver lavapipe.`)
  if (!root) throw new GpuError(`${why} ${byHand}`)
  if (terminal) {
    const ask = createInterface({ input: process.stdin, output: process.stderr })
    const answer = await ask.question(`${why} Install ${all.join(' ')} now? [Y/n] `).finally(() => ask.close())
    if (/^n/i.test(answer.trim())) throw new GpuError(`${why} ${byHand}`)
  }
  try {
    say(`${why} Reading the list of packages.`)
    apt('apt-get', ['update', '-qq'])
    const wanted = typeof packages === 'function' ? packages() : packages
    say(`Installing Debian's packages ${wanted.join(' ')}; this takes about a minute.`)
    apt('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...wanted])
  } catch (error) {
    throw new GpuError(`${why} Installing failed: ${reasonOf(error)}. ${byHand}`)
  }
}

/**
 * Installs lavapipe, and a C compiler where the system's Mesa is from before 23, whose driver needs a layer.
 * @throws GpuError with the one command to run, when it may not or does not work.
 */
export function installSoftwareDriver(options: InstallOptions = {}): Promise<void> {
  const choose = () => {
    const version = /^Version: (\d+)/m.exec(apt('apt-cache', ['show', '--no-all-versions', 'mesa-vulkan-drivers']))
    return version && Number(version[1]) >= 23 ? driverPackages : [...driverPackages, ...compilerPackages]
  }
  return installPackages(choose, 'No GPU was found; Nexus can run on one in software (Mesa lavapipe).', options)
}
