import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import { exists } from './files.ts'

const built = join(import.meta.dirname, '../../dist')

/**
 * What a bundle carries to run by itself, by its path there: the command line and its library (dist/program) and, where it
 * was built, the page (dist/page).
 * @throws Error with the command to run when there is no program.
 */
export function readProgram(folder = built): Map<string, Uint8Array<ArrayBuffer>> {
  const parts = new Map<string, Uint8Array<ArrayBuffer>>()
  if (!exists(join(folder, 'program'))) throw new Error('The program of bundles is not built. Run: npm run program')
  for (const name of ['program', 'page']) {
    const root = join(folder, name)
    if (!exists(root)) continue
    for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      parts.set(relative(root, path).split(sep).join('/'), new Uint8Array(readFileSync(path)))
    }
  }
  return parts
}
