import { BundleError } from '../core/errors.ts'
import { canonicalJson, sha256, type WritableFiles } from './files.ts'
import { isAllowed, type Manifest, manifestSchema } from './manifest.ts'

/** What {@link packBundle} is given: the manifest without what follows from the files. */
export type ManifestFacts = Omit<Manifest, 'schema_version' | 'bundle_id' | 'files' | 'invariants'>

/**
 * Writes a bundle: every part, then the manifest with their hashes. The same parts and facts give the same bytes.
 * @param parts contents by path; each path must be one that a bundle may hold.
 * @throws BundleError for any other path.
 */
export async function packBundle(
  files: WritableFiles,
  parts: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  facts: ManifestFacts,
): Promise<Manifest> {
  const listed: Manifest['files'] = {}
  for (const path of [...parts.keys()].sort()) {
    if (!isAllowed(path)) throw new BundleError(`Cannot pack ${path}: a bundle has no such file`)
    const bytes = parts.get(path)!
    listed[path] = { sha256: await sha256(bytes), bytes: bytes.length }
    await files.write(path, bytes)
  }
  const manifest = manifestSchema.parse({
    schema_version: 1,
    bundle_id: await sha256(new TextEncoder().encode(canonicalJson(listed))),
    invariants: { teacher_free: true, training_code_excluded: true },
    files: listed,
    ...facts,
  })
  await files.write('manifest.json', new TextEncoder().encode(`${canonicalJson(manifest)}\n`))
  return manifest
}
