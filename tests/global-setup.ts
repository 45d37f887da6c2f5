import { existsSync } from 'node:fs'
import { installPackages } from '../src/host/apt.ts'
import { openGpuRoot } from '../src/host/gpu-root.ts'
import { chromiumPath } from './browser/chromium.ts'

/**
 * Sets up the software GPU, if it is needed, once for all workers: they inherit the environment that it sets. The browser
 * for the tests of pages is installed where it is missing and may be; where it may not, those tests say so.
 */
export default async function setup(): Promise<void> {
  const { name } = await openGpuRoot()
  console.error(`Tests run on ${name}`)
  if (!existsSync(chromiumPath))
    await installPackages(['chromium'], 'The tests of pages need Chromium.', { terminal: false }).catch(
      (error: Error) => console.error(error.message),
    )
}
