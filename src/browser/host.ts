// What a browser has in the place of src/node/host.ts: the package's `#host` is one or the other.
import type { BundleSource, OpenBundle } from '../bundle/source.ts'
import type { OnProgress } from '../core/progress.ts'
import { openSource } from './open-source.ts'

export { openGpuRoot } from './open-gpu.ts'

/** Opens a bundle at a web address, a folder or files that a person picked, or a .zip as a Blob. */
export async function openBundle(
  source: BundleSource,
  options: { readonly onProgress?: OnProgress; readonly signal?: AbortSignal; readonly cache?: boolean } = {},
): Promise<OpenBundle> {
  return { files: await openSource(source, options), [Symbol.asyncDispose]: async () => {} }
}
