import { BundleError, messageOf } from '../core/errors.ts'
import { checkWeights, type DecoderConfig, linearShapes, parseModelConfig } from '../formats/model-config.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import { canonicalJson, type Files, sha256 } from './files.ts'
import { isAllowed, type Manifest, parseManifest, requiredPaths } from './manifest.ts'

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
  readonly checks: readonly Check[]
}

/**
 * Looks a bundle over: the list of files, their hashes, what the weights hold, and that nothing of a teacher or of
 * training is in it. It reads bytes only: no weight reaches a GPU.
 */
export async function verifyBundle(files: Files): Promise<VerifyReport> {
  const checks: Check[] = []
  const check = async (name: string, work: () => Promise<void> | void) => {
    try {
      await work()
      checks.push({ name, ok: true, reason: '' })
      return true
    } catch (error) {
      checks.push({ name, ok: false, reason: messageOf(error) })
      return false
    }
  }
  let manifest: Manifest | undefined
  await check('manifest', async () => {
    manifest = parseManifest(await files.read('manifest.json'))
  })
  if (!manifest) return { ok: false, bundleId: '', checks }
  const { files: listed } = manifest
  const paths = (await files.list()).filter((path) => path !== 'manifest.json')

  await check('paths', () => checkPaths(paths, Object.keys(listed)))
  const intact = await check('hashes', () => checkHashes(files, manifest!))
  await check('adapters belong to the backbone', () => checkAdapters(manifest!))
  // What a file means is only asked once it is the file that was packed.
  if (intact) {
    await check('weights', () => checkContents(files, manifest!))
    await check('teacher-free', () => checkTeacherFree(files, paths))
  }
  return { ok: checks.every(({ ok }) => ok), bundleId: manifest.bundle_id, checks }
}

/** @throws BundleError with the first reason, unless the bundle is as it was packed. */
export async function assertVerified(files: Files): Promise<VerifyReport> {
  const report = await verifyBundle(files)
  const failed = report.checks.find(({ ok }) => !ok)
  if (failed) throw new BundleError(`The bundle is not as it was packed: ${failed.reason}`)
  return report
}

function checkPaths(paths: readonly string[], listed: readonly string[]): void {
  for (const path of [...paths, ...listed])
    if (!isAllowed(path)) throw new BundleError(`${JSON.stringify(path)} does not belong in a bundle`)
  for (const path of paths) if (!listed.includes(path)) throw new BundleError(`${path} is not in the manifest`)
  for (const path of [...listed, ...requiredPaths])
    if (!paths.includes(path)) throw new BundleError(`${path} is missing`)
  const folded = new Map<string, string>()
  for (const path of paths) {
    const key = path.normalize('NFKC').toLowerCase()
    const twin = folded.get(key)
    if (twin !== undefined) throw new BundleError(`${path} and ${twin} are the same name on some systems`)
    folded.set(key, path)
  }
}

async function checkHashes(files: Files, manifest: Manifest): Promise<void> {
  for (const [path, { sha256: want, bytes: size }] of Object.entries(manifest.files)) {
    const bytes = await files.read(path)
    if (bytes.length !== size) throw new BundleError(`${path} has ${bytes.length} bytes, the manifest says ${size}`)
    if ((await sha256(bytes)) !== want) throw new BundleError(`${path} was altered: its sha256 is not the manifest's`)
  }
  const id = await sha256(new TextEncoder().encode(canonicalJson(manifest.files)))
  if (id !== manifest.bundle_id) throw new BundleError('the manifest was altered: its id is not that of its files')
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

async function checkContents(files: Files, manifest: Manifest): Promise<void> {
  const json = async (path: string) => JSON.parse(new TextDecoder().decode(await files.read(path))) as unknown
  const config = parseModelConfig(await json('backbone/config.json'))
  const { tensors } = parseSafetensors(await files.read('backbone/backbone.safetensors'))
  checkWeights(config, tensors)
  let count = 0
  for (const { shape } of tensors.values()) count += shape.reduce((size, dimension) => size * dimension, 1)
  if (count !== manifest.model_metadata.backbone_parameters)
    throw new BundleError(
      `the backbone has ${count} parameters, the manifest says ${manifest.model_metadata.backbone_parameters}`,
    )
  for (const [name, { adapter, parameters }] of Object.entries(manifest.capabilities))
    checkAdapterTensors(name, config, parseSafetensors(await files.read(adapter)).tensors, parameters)
  const router = parseSafetensors(await files.read('router/router.safetensors')).tensors
  const [rows, width] = router.get('prototypes')?.shape ?? []
  if (router.size !== 1 || rows !== Object.keys(manifest.capabilities).length || width !== config.width)
    throw new BundleError('the router must hold one prototype for each capability and nothing else')
}

function checkAdapterTensors(
  name: string,
  config: DecoderConfig,
  tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  parameters: number,
): void {
  const shapes = linearShapes(config) as Readonly<Record<string, readonly [number, number] | undefined>>
  let count = 0
  for (const [key, { shape }] of tensors) {
    const match = /^base_model\.model\.model\.layers\.(\d+)\.([\w.]+)\.lora_([AB])\.weight$/.exec(key)
    const linear = match && shapes[match[2]]
    const fits =
      linear &&
      Number(match[1]) < config.layers &&
      shape.length === 2 &&
      (match[3] === 'A' ? shape[1] === linear[1] : shape[0] === linear[0])
    if (!fits) throw new BundleError(`adapters/${name}.safetensors holds ${key}, which is no part of an adapter`)
    count += shape[0] * shape[1]
  }
  if (count !== parameters)
    throw new BundleError(`adapters/${name}.safetensors has ${count} parameters, the manifest says ${parameters}`)
}

const forbidden = /teacher|optimi[sz]er|gradient|checkpoint|adamw|distil|training_args|capture|anchor/i

/** Names of a teacher or of training in anything that the runtime reads. The report and the README may tell of them. */
async function checkTeacherFree(files: Files, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const name = forbidden.exec(path)
    if (name) throw new BundleError(`the path ${path} speaks of ${name[0]}`)
    const text = /\.json$/.test(path) && path !== 'verify_report.json' && path !== 'tokenizer/tokenizer.json'
    if (text) {
      const found = forbidden.exec(new TextDecoder().decode(await files.read(path)))
      if (found) throw new BundleError(`${path} speaks of ${found[0]}`)
    }
    if (path.endsWith('.safetensors')) {
      const { metadata } = parseSafetensors(await files.read(path))
      const found = forbidden.exec(JSON.stringify(metadata))
      if (found) throw new BundleError(`the metadata of ${path} speaks of ${found[0]}`)
    }
  }
}
