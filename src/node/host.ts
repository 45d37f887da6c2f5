// What Node has in the place of src/browser/host.ts: the package's `#host` is one or the other.
import { statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type BundleSource, isFiles, type OpenBundle } from '../bundle/source.ts'
import { ZipFiles } from '../bundle/zip.ts'
import { BundleError } from '../core/errors.ts'
import type { OnProgress } from '../core/progress.ts'
import { exists, FileSource, FolderFiles } from '../host/files.ts'

export { openGpuRoot } from '../host/gpu-root.ts'

const nothing = { [Symbol.asyncDispose]: async () => {} }

/**
 * Opens a bundle: a folder, or a .zip, which is read where it lies.
 * @throws BundleError when it is neither, TypeError for what only a browser has.
 */
export async function openBundle(
  source: BundleSource,
  _options?: { readonly onProgress?: OnProgress; readonly signal?: AbortSignal; readonly cache?: boolean },
): Promise<OpenBundle> {
  if (typeof source !== 'string' && !(source instanceof URL)) {
    if (isFiles(source)) return { files: source, ...nothing }
    throw new TypeError('Cannot open this bundle in Node: give the path of a folder or of a .zip')
  }
  const path = source instanceof URL ? fileURLToPath(source) : source
  if (!exists(path)) throw new BundleError(`Cannot open ${path}: there is no such bundle`)
  if (statSync(path).isDirectory()) return { files: new FolderFiles(path), ...nothing }
  const bytes = await FileSource.open(path).catch((error: Error) => {
    throw new BundleError(error.message)
  })
  try {
    return { files: await ZipFiles.open(bytes), [Symbol.asyncDispose]: () => bytes[Symbol.asyncDispose]() }
  } catch (error) {
    await bytes[Symbol.asyncDispose]()
    throw error
  }
}
