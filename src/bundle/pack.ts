import { BundleError } from '../core/errors.ts'
import { checkNames, sha256, type WritableFiles } from './files.ts'
import { isAllowed, kindOf, manifestPath, requiredPaths } from './layout.ts'
import { bundleIdOf, type Manifest, manifestSchema, schemaVersion, writeManifest } from './manifest.ts'

/** What {@link packBundle} is given: the manifest without what follows from the files. */
export type ManifestFacts = Omit<Manifest, 'schema_version' | 'bundle_id' | 'files' | 'invariants' | 'size_limits'> & {
  /** What the bundle must fit into; what it has, rounded up to MiB, unless told. */
  readonly size_limits?: Manifest['size_limits']
}

/**
 * Writes a bundle: every part, then the manifest with their hashes. The same parts and facts give the same bytes.
 * @param parts contents by path; each path must be one that a bundle may hold.
 * @throws BundleError for any other path, a part that is missing or one that is too large.
 */
export async function packBundle(
  files: WritableFiles,
  parts: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  facts: ManifestFacts,
): Promise<Manifest> {
  const paths = [...parts.keys()].sort()
  checkNames(paths)
  const odd = paths.find((path) => !isAllowed(path))
  if (odd !== undefined) throw new BundleError(`Cannot pack ${odd}: a bundle has no such file`)
  const missing = requiredPaths.find((path) => !parts.has(path))
  if (missing !== undefined) throw new BundleError(`Cannot pack a bundle without ${missing}`)
  const listed: Manifest['files'] = {}
  for (const path of paths) {
    const bytes = parts.get(path)!
    listed[path] = { sha256: await sha256(bytes), size: bytes.length }
  }
  const facing = {
    schema_version: schemaVersion,
    invariants: { teacher_free: true, training_code_excluded: true },
    files: listed,
    ...facts,
    size_limits: facts.size_limits ?? sizesOf(listed),
  } as const
  checkSizes(facing)
  const manifest = manifestSchema.parse({ ...facing, bundle_id: await bundleIdOf(facing) })
  for (const path of paths) await files.write(path, parts.get(path)!)
  await files.write(manifestPath, writeManifest(manifest))
  return manifest
}

function sizesOf(files: Manifest['files']): Manifest['size_limits'] {
  const up = (bytes: number) => Math.max(1, Math.ceil(bytes / 2 ** 20)) * 2 ** 20
  let [total, weights, other] = [0, 0, 0]
  for (const [path, { size }] of Object.entries(files)) {
    total += size
    if (kindOf(path) === 'weights') weights = Math.max(weights, size)
    else other = Math.max(other, size)
  }
  return { total: up(total), weights: up(weights), other: up(other) }
}

/** Checks the listed sizes against the limits. @throws BundleError with the numbers. */
export function checkSizes({ files, size_limits: limits }: Pick<Manifest, 'files' | 'size_limits'>): void {
  let total = 0
  for (const [path, { size }] of Object.entries(files)) {
    const most = kindOf(path) === 'weights' ? limits.weights : limits.other
    if (size > most) throw new BundleError(`${path} has ${size} bytes, more than the ${most} that the manifest allows`)
    total += size
  }
  if (total > limits.total)
    throw new BundleError(`the files have ${total} bytes, more than the ${limits.total} that the manifest allows`)
}
