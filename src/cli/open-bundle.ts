import { statSync } from 'node:fs'
import type { Files } from '../bundle/files.ts'
import { ZipFiles } from '../bundle/zip.ts'
import { BundleError } from '../core/errors.ts'
import { exists, FileSource, FolderFiles } from '../host/files.ts'

/** A bundle's files, open until they are disposed of. */
export interface OpenBundle extends AsyncDisposable {
  readonly files: Files
}

/** Opens a bundle: a folder, or a .zip, which is read where it lies. @throws BundleError when it is neither. */
export async function openBundle(path: string): Promise<OpenBundle> {
  if (!exists(path)) throw new BundleError(`Cannot open ${path}: there is no such bundle`)
  if (statSync(path).isDirectory()) return { files: new FolderFiles(path), [Symbol.asyncDispose]: async () => {} }
  const source = await FileSource.open(path).catch((error: Error) => {
    throw new BundleError(error.message)
  })
  try {
    return { files: await ZipFiles.open(source), [Symbol.asyncDispose]: () => source[Symbol.asyncDispose]() }
  } catch (error) {
    await source[Symbol.asyncDispose]()
    throw error
  }
}
