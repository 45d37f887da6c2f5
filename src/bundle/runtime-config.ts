import * as z from 'zod'
import { BundleError } from '../core/errors.ts'
import { routerKinds } from '../formats/router-kind.ts'
import { storages } from './manifest.ts'
import { parseYaml, writeYaml } from './yaml.ts'

const schema = z.strictObject({
  schema_version: z.literal(1),
  backbone: z.strictObject({ storage: z.enum(storages) }),
  router: z.strictObject({
    kind: z.enum(routerKinds),
    /** In the order of the router's rows. */
    capabilities: z.array(z.string()).min(1),
  }),
})

/** config/runtime.yaml: how a bundle is run. */
export type RuntimeConfig = z.infer<typeof schema>

/** config/runtime.yaml as bytes. */
export function writeRuntimeConfig(config: Omit<RuntimeConfig, 'schema_version'>): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(writeYaml(schema.parse({ schema_version: 1, ...config })))
}

/** Reads config/runtime.yaml. @throws BundleError naming the field or line that is wrong. */
export function parseRuntimeConfig(bytes: Uint8Array): RuntimeConfig {
  let value: unknown
  try {
    value = parseYaml(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new BundleError(`config/runtime.yaml: ${(error as Error).message}`)
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new BundleError(`config/runtime.yaml: ${issue.path.join('.') || 'top level'}: ${issue.message}`)
}
