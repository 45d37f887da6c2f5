import * as z from 'zod'
import { BundleError } from '../core/errors.ts'
import { canonicalJson } from './canonical-json.ts'
import { sha256 } from './files.ts'
import { capabilityName } from './layout.ts'

/** The schema that this Nexus reads and writes. */
export const schemaVersion = 2

/** How the linear layers of the packed backbone are held. */
export const storages = ['f16', 'nf4', 'int8'] as const

/** How the linear layers of a packed backbone are held. */
export type BundleStorage = (typeof storages)[number]

const hash = z.string().regex(/^[0-9a-f]{64}$/)
const share = z.number().min(0)
const count = z.number().int().positive()
const version = z.string().regex(/^\d+\.\d+\.\d+[0-9A-Za-z.+-]*$/)

const capability = z.strictObject({
  adapter: z.string().describe('path of its adapter; each adapter is a file of its own'),
  adapter_version: version,
  base_sha256: hash.describe('sha256 of the backbone file that the adapter belongs to'),
  parameters: count,
  restricted: z.boolean().describe('whether it is loaded only by a caller who asks for restricted ones'),
  example: z.string().describe('a prompt that it answers'),
  metric: z.string(),
  score: share,
  retention: share.describe('score over the score of the original on the same items'),
  lower_bound: z.number().describe('one-sided 95 % lower bound of the retention'),
  n: count.describe('items of the measurement'),
  verdict: z.enum(['pass', 'fail', 'inconclusive']),
  measured_storage: z.enum(storages).describe('how the backbone was held when this was measured'),
})

/** manifest.json of a bundle. */
export const manifestSchema = z
  .strictObject({
    schema_version: z.literal(schemaVersion),
    bundle_id: hash.describe('sha256 of the canonical JSON of everything else here but build_timestamp'),
    build_timestamp: z.iso.datetime(),
    tool_version: version,
    seed: z.number().int(),
    model_metadata: z.strictObject({
      architecture: z.string(),
      storage: z.enum(storages),
      backbone_parameters: count,
      backbone_ratio: share.describe('backbone parameters over those of the original'),
    }),
    invariants: z.strictObject({ teacher_free: z.literal(true), training_code_excluded: z.literal(true) }),
    size_limits: z
      .strictObject({ total: count, weights: count, other: count })
      .describe('most bytes of all files, of one weight file, of any other file'),
    capabilities: z.record(z.string().regex(capabilityName), capability),
    files: z.record(z.string(), z.strictObject({ sha256: hash, size: z.number().int().nonnegative() })),
  })
  .meta({ title: 'manifest.json of a Nexus bundle' })

/** What a bundle says of itself. */
export type Manifest = z.infer<typeof manifestSchema>

/** The JSON Schema of manifest.json, as docs/manifest.schema.json publishes it. */
export function manifestJsonSchema(): object {
  return z.toJSONSchema(manifestSchema)
}

/** What `bundle_id` must be: equal contents have equal ids, whenever they were built. */
export function bundleIdOf({
  bundle_id: _,
  build_timestamp: __,
  ...rest
}: Omit<Manifest, 'bundle_id'> & { bundle_id?: string }): Promise<string> {
  return sha256(canonicalJson(rest))
}

/** manifest.json of a manifest: canonical JSON and a line feed. */
export function writeManifest(manifest: Manifest): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${canonicalJson(manifest)}\n`)
}

/**
 * Reads manifest.json.
 * @throws BundleError naming the field that is missing or wrong, or when the text is not the canonical one.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  let text: string
  let json: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    json = JSON.parse(text)
  } catch (error) {
    throw new BundleError(`manifest.json is not valid JSON (${(error as Error).message})`)
  }
  const packed = (json as { schema_version?: unknown } | null)?.schema_version
  if (typeof packed === 'number' && packed !== schemaVersion)
    throw new BundleError(
      `manifest.json has schema_version ${packed}, this Nexus reads ${schemaVersion}: pack the bundle again`,
    )
  const result = manifestSchema.safeParse(json)
  if (!result.success) {
    const [issue] = result.error.issues
    throw new BundleError(`manifest.json: ${issue.path.join('.') || 'top level'}: ${issue.message}`)
  }
  if (`${canonicalJson(json)}\n` !== text)
    throw new BundleError('manifest.json is not in canonical form (RFC 8785 and a line feed)')
  return result.data
}
