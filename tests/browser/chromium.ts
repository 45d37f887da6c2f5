import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'
import { installPackages } from '../../src/host/apt.ts'

/** With a GPU in software: the same everywhere. */
const flags = [
  ...['--headless=new', '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan'],
  '--use-webgpu-adapter=swiftshader',
]

/**
 * Starts Debian's Chromium, or what NEXUS_CHROMIUM names; as root it is installed where it is missing, as the GPU driver is.
 * @param more flags beside those for WebGPU.
 * @throws GpuError with the one command to run, when there is none and it may not be installed.
 */
export async function launchChromium(more: readonly string[] = []): Promise<Browser> {
  const executablePath = process.env.NEXUS_CHROMIUM ?? '/usr/bin/chromium'
  if (!existsSync(executablePath))
    await installPackages(['chromium'], `The tests of the page need a browser at ${executablePath}.`, {
      terminal: false,
    })
  return chromium.launch({ executablePath, args: [...flags, ...more] })
}

/** The same without WebGPU. */
export async function launchWithoutWebGpu(): Promise<Browser> {
  const executablePath = process.env.NEXUS_CHROMIUM ?? '/usr/bin/chromium'
  return chromium.launch({
    executablePath,
    args: ['--headless=new', '--no-sandbox', '--disable-features=WebGPU', '--disable-blink-features=WebGPU'],
  })
}
