import type { Files } from '../bundle/files.ts'
import { type BundleSource, isFiles } from '../bundle/source.ts'
import { ZipFiles } from '../bundle/zip.ts'
import { BundleCache } from './cache.ts'
import { blobSource, DirectoryFiles, PickedFiles, portable } from './local-files.ts'
import { type FetchBundleOptions, fetchBundle } from './remote-files.ts'

/** How a bundle is opened in a page. */
export interface OpenSourceOptions extends Omit<FetchBundleOptions, 'cache'> {
  /** Whether fetched files are kept in the browser (OPFS); true unless told. */
  readonly cache?: boolean
}

/**
 * The files of a bundle, from wherever it lies; nothing is verified yet.
 * @throws NetworkError, BundleError or TypeError that says what to do.
 */
export async function openSource(source: BundleSource, options: OpenSourceOptions = {}): Promise<Files> {
  if (isFiles(source)) return source
  const place = portable(source)
  if (typeof place === 'string') {
    const cache = options.cache === false ? undefined : await BundleCache.open()
    return fetchBundle(new URL(place), { ...options, cache })
  }
  if (place instanceof Blob) return ZipFiles.open(blobSource(place))
  return Array.isArray(place) ? new PickedFiles(place) : new DirectoryFiles(place)
}
