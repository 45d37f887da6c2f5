import { z } from 'zod'
import { BundleError } from '../core/errors.ts'

const hash = z.string().regex(/^[0-9a-f]{64}$/)
const share = z.number().min(0)

/** manifest.json of a bundle. */
export const manifestSchema = z.strictObject({
  schema_version: z.literal(1),
  /** sha256 of the canonical list of files: the same contents have the same id. */
  bundle_id: hash,
  build_timestamp: z.iso.datetime(),
  tool_version: z.string(),
  seed: z.number().int(),
  model_metadata: z.strictObject({
    architecture: z.string(),
    backbone_parameters: z.number().int().positive(),
    backbone_ratio: share,
  }),
  invariants: z.strictObject({ teacher_free: z.literal(true), training_code_excluded: z.literal(true) }),
  capabilities: z.record(
    z.string().regex(/^[a-z0-9][a-z0-9_-]*$/),
    z.strictObject({
      adapter: z.string(),
      /** sha256 of the backbone that the adapter was trained on. */
      base_sha256: hash,
      parameters: z.number().int().positive(),
      restricted: z.boolean(),
      metric: z.string(),
      score: share,
      retention: share,
      lower_bound: z.number(),
      n: z.number().int().positive(),
      verdict: z.enum(['pass', 'fail', 'inconclusive']),
    }),
  ),
  files: z.record(z.string(), z.strictObject({ sha256: hash, bytes: z.number().int().nonnegative() })),
})

/** What a bundle says of itself. */
export type Manifest = z.infer<typeof manifestSchema>

/** Paths that a bundle may hold; `*` stands for the name of a capability. */
export const allowedPaths = [
  'README.md',
  'LICENSE',
  'verify_report.json',
  'backbone/backbone.safetensors',
  'backbone/config.json',
  'adapters/*.safetensors',
  'router/router.safetensors',
  'tokenizer/tokenizer.json',
  'config/runtime.json',
] as const

/** Files without which a bundle does not run. */
export const requiredPaths = allowedPaths.filter(
  (path) => !path.includes('*') && path !== 'README.md' && path !== 'LICENSE',
)

/** Whether `path` is one that a bundle may hold. */
export function isAllowed(path: string): boolean {
  return allowedPaths.some((allowed) => {
    const [before, after] = allowed.split('*')
    if (after === undefined) return path === allowed
    const name = path.slice(before.length, path.length - after.length)
    return path.startsWith(before) && path.endsWith(after) && /^[a-z0-9][a-z0-9_-]*$/.test(name)
  })
}

/**
 * Reads manifest.json.
 * @throws BundleError naming the field that is missing or wrong.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new BundleError(`manifest.json is not valid JSON (${(error as Error).message})`)
  }
  const result = manifestSchema.safeParse(json)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new BundleError(`manifest.json: ${issue.path.join('.') || 'top level'}: ${issue.message}`)
}
