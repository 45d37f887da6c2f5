import * as z from 'zod'
import { BundleError, messageOf } from '../core/errors.ts'
import { checkNames, type Files, sha256 } from './files.ts'
import type { Key } from './keys.ts'
import { isAllowed, manifestPath, requiredPaths, signaturePath } from './layout.ts'
import { bundleIdOf, type Manifest, parseManifest } from './manifest.ts'
import { checkSizes } from './pack.ts'
import { checkSignature } from './signature.ts'
import { checkTeacherFree } from './teacher-free.ts'
import { checkContents } from './weights.ts'

/** One thing that was looked at. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  /** Why not, in a sentence; empty when it is. */
  readonly reason: string
}

/** What {@link verifyBundle} found. */
export interface VerifyReport {
  readonly ok: boolean
  readonly bundleId: string
  /** `unchecked` when there is a signature but no key was given to check it with. */
  readonly signature: 'none' | 'unchecked' | 'valid' | 'invalid'
  readonly checks: readonly Check[]
  /** What a reader should know that is no fault. */
  readonly notes: readonly string[]
  /** What the bundle says of itself, where that can be read. */
  readonly manifest?: Manifest
}

/** What a bundle is verified with. */
export interface VerifyOptions {
  /** The public key that must have signed it; without one a bundle need not be signed. */
  readonly key?: Key
}

/** Runs checks one by one and keeps what each found. */
class CheckList {
  readonly checks: Check[] = []

  /** Runs `work`. @returns whether it threw nothing. */
  async run(name: string, work: () => Promise<void> | void): Promise<boolean> {
    try {
      await work()
      this.checks.push({ name, ok: true, reason: '' })
      return true
    } catch (error) {
      this.checks.push({ name, ok: false, reason: messageOf(error) })
      return false
    }
  }
}

/**
 * Looks a bundle over: the list of files, their sizes and hashes, the signature, what the weights hold, and that nothing
 * of a teacher or of training is in it. It reads bytes only: no weight reaches a GPU.
 */
export async function verifyBundle(files: Files, { key }: VerifyOptions = {}): Promise<VerifyReport> {
  const list = new CheckList()
  let manifest: Manifest | undefined
  await list.run('manifest', async () => {
    manifest = parseManifest(await readSmall(files, manifestPath))
  })
  if (!manifest) return { ok: false, bundleId: '', signature: 'none', checks: list.checks, notes: [] }
  const known = manifest
  const all = await files.list()
  const paths = all.filter((path) => path !== manifestPath && path !== signaturePath)
  const named = await list.run('names', () => checkNames(all))
  const complete = await list.run('allow-list', () => checkPaths(paths, Object.keys(known.files)))
  // Sizes come before contents: nothing larger than the manifest allows is ever read.
  const sized = complete && (await list.run('sizes', () => checkAllSizes(files, known)))
  const signed = all.includes(signaturePath)
  const signature = await list.run('signature', async () => {
    if (signed) await checkSignature(await readSmall(files, signaturePath), known, key)
    else if (key) throw new BundleError(`the bundle is not signed: ${signaturePath} is missing`)
  })
  const intact = sized && (await list.run('hashes', () => checkHashes(files, known)))
  await list.run('adapters belong to the backbone', () => checkAdapters(known))
  // What a file means is only asked once it is the file that was packed.
  if (named && intact) {
    await list.run('report', () => checkReport(files, known))
    await list.run('weights', () => checkContents(files, known))
    await list.run('teacher-free', () => checkTeacherFree(files, paths))
  }
  return {
    ok: list.checks.every(({ ok }) => ok),
    bundleId: known.bundle_id,
    signature: !signature ? 'invalid' : !signed ? 'none' : key ? 'valid' : 'unchecked',
    checks: list.checks,
    notes: notesOn(known, signed, key),
    manifest: known,
  }
}

/** @throws BundleError with the first reason, unless the bundle is as it was packed. */
export async function assertVerified(files: Files, options?: VerifyOptions): Promise<VerifyReport> {
  const report = await verifyBundle(files, options)
  const failed = report.checks.find(({ ok }) => !ok)
  if (failed) throw new BundleError(`The bundle is not as it was packed: ${failed.reason}`)
  return report
}

/**
 * A verified bundle's manifest and files, and what the verification found. Each file is checked again as it is read, so that what is used is what was
 * verified, even where someone writes into the folder meanwhile.
 * @throws BundleError with the first reason, unless the bundle is as it was packed.
 */
export async function openVerified(
  files: Files,
  options?: VerifyOptions,
): Promise<{ manifest: Manifest; files: Files; report: VerifyReport }> {
  const report = await assertVerified(files, options)
  const manifest = report.manifest!
  const read = async (path: string) => {
    const bytes = await files.read(path)
    if ((await sha256(bytes)) !== manifest.files[path]?.sha256)
      throw new BundleError(`${path} was altered after it was verified`)
    return bytes
  }
  return {
    manifest,
    report,
    files: { read, list: async () => Object.keys(manifest.files), size: async (path) => manifest.files[path].size },
  }
}

function notesOn({ model_metadata: { storage }, capabilities }: Manifest, signed: boolean, key?: Key): string[] {
  const notes: string[] = []
  if (!signed) notes.push('The bundle is not signed: it is whole, but anyone may have made it.')
  else if (!key) notes.push('The bundle is signed; give the public key with --key to know by whom.')
  for (const [name, { measured_storage, verdict, restricted }] of Object.entries(capabilities)) {
    if (measured_storage !== storage)
      notes.push(`${name} was measured with the backbone in ${measured_storage}; the bundle holds it in ${storage}.`)
    if (verdict !== 'pass') notes.push(`${name}: the verdict of the gate was ${verdict}.`)
    if (restricted) notes.push(`${name} is restricted: it is loaded only by a caller who asks for it.`)
  }
  return notes
}

/** Most bytes of the two files whose sizes no manifest tells. */
const mostSmall = 2 ** 24

async function readSmall(files: Files, path: string): Promise<Uint8Array<ArrayBuffer>> {
  const size = await files.size(path)
  if (size > mostSmall) throw new BundleError(`${path} has ${size} bytes, more than ${mostSmall}`)
  return files.read(path)
}

function checkPaths(paths: readonly string[], listed: readonly string[]): void {
  for (const path of [...paths, ...listed])
    if (!isAllowed(path)) throw new BundleError(`${JSON.stringify(path)} does not belong in a bundle`)
  for (const path of paths) if (!listed.includes(path)) throw new BundleError(`${path} is not in the manifest`)
  for (const path of [...listed, ...requiredPaths])
    if (!paths.includes(path)) throw new BundleError(`${path} is missing`)
}

async function checkAllSizes(files: Files, manifest: Manifest): Promise<void> {
  checkSizes(manifest)
  for (const [path, { size }] of Object.entries(manifest.files)) {
    const found = await files.size(path)
    if (found !== size) throw new BundleError(`${path} has ${found} bytes, the manifest says ${size}`)
  }
}

async function checkHashes(files: Files, manifest: Manifest): Promise<void> {
  for (const [path, { sha256: want, size }] of Object.entries(manifest.files)) {
    const bytes = await files.read(path)
    if (bytes.length !== size || (await sha256(bytes)) !== want)
      throw new BundleError(`${path} was altered: its sha256 is not the manifest's`)
  }
  if ((await bundleIdOf(manifest)) !== manifest.bundle_id)
    throw new BundleError('the manifest was altered: its id is not that of what it says')
}

function checkAdapters({ capabilities, files }: Manifest): void {
  const base = files['backbone/backbone.safetensors']?.sha256
  for (const [name, { adapter, base_sha256 }] of Object.entries(capabilities)) {
    if (adapter !== `adapters/${name}.safetensors`)
      throw new BundleError(`capability ${name} names ${adapter} as its adapter`)
    if (!files[adapter]) throw new BundleError(`${adapter}, the adapter of ${name}, is not in the manifest`)
    if (base_sha256 !== base) throw new BundleError(`${adapter} was trained on another backbone`)
  }
  for (const path of Object.keys(files)) {
    const name = /^adapters\/(.*)\.safetensors$/.exec(path)?.[1]
    if (name !== undefined && !capabilities[name]) throw new BundleError(`${path} belongs to no capability`)
  }
}

const measured = z.object({
  capabilities: z.record(
    z.string(),
    z.object({ student: z.number(), ratio: z.number(), lower: z.number(), n: z.number(), verdict: z.string() }),
  ),
})

/** What the manifest claims of the capabilities is what the gate's report says. */
async function checkReport(files: Files, manifest: Manifest): Promise<void> {
  const result = measured.safeParse(JSON.parse(new TextDecoder().decode(await files.read('verify_report.json'))))
  if (!result.success) throw new BundleError('verify_report.json is no report of a gate')
  const names = Object.keys(manifest.capabilities)
  for (const name of Object.keys(result.data.capabilities))
    if (!names.includes(name)) throw new BundleError(`verify_report.json speaks of ${name}, which the manifest lacks`)
  for (const [name, { score, retention, lower_bound, n, verdict }] of Object.entries(manifest.capabilities)) {
    const said = result.data.capabilities[name]
    const same =
      said?.student === score &&
      said.ratio === retention &&
      said.lower === lower_bound &&
      said.n === n &&
      said.verdict === verdict
    if (!same) throw new BundleError(`verify_report.json and the manifest say different things of ${name}`)
  }
}
