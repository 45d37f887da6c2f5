import { z } from 'zod'

const estimate = z.number().nonnegative()
const rankSchema = z.object({
  rank: estimate.describe('the default estimate: parallel analysis on correlations'),
  parallel: estimate,
  gavishDonoho: estimate,
  marchenkoPastur: estimate,
  explained95: estimate,
  participationRatio: estimate,
  effectiveRank: estimate,
  massive: z
    .array(z.object({ channel: z.number().int(), deviation: z.number(), mean: z.number() }))
    .describe('channels that were kept from deciding'),
})

const siteSchema = z.object({
  dimension: z.number().int().positive(),
  method: z.enum(['covariance', 'frequent-directions']),
  from: z.string().optional().describe('of an output: the input whose covariance W C W^T it was made of'),
  rows: z.number().int().nonnegative().describe('tokens that were taken'),
})

/** profile.json of one capability. */
export const profileSchema = z.object({
  format: z.literal('nexus-profile-1'),
  capability: z.string(),
  description: z.string(),
  teacher: z.object({
    name: z.string(),
    hash: z.string().describe('of the configuration and the beginning of every tensor'),
    storage: z.string(),
    layers: z.number().int().positive(),
    heads: z.number().int().positive(),
    width: z.number().int().positive(),
  }),
  data: z.object({
    hash: z.string(),
    tokens: z.number().int().describe('tokens that count: neither padding nor the first of a sample'),
    stride: z.number().int().positive().describe('of this many tokens the PCAs took one'),
  }),
  samples: z.number().int().positive(),
  sites: z.record(z.string(), siteSchema),
  ranks: z.record(z.string(), rankSchema).describe('by site'),
  outliers: z
    .array(z.object({ share: z.number(), positions: z.array(z.number().int()) }))
    .describe('by layer: tokens whose norm dwarfs the others, in the first batch, and where most rows have one'),
  layerScores: z.array(z.number()).describe('by layer: 1 - E cos(in, out)'),
  ablation: z
    .array(z.number().nullable())
    .describe('by layer: KL in nats a token of leaving it out, on held-out items; null where it was not measured'),
  heldOutTokens: z.number().int(),
  keyLayers: z.array(z.number().int()).describe('the fewest layers that make half of the measured KL, dearest first'),
  scoreCorrelation: z.number().nullable().describe('Spearman: layer scores and ablation, over the measured layers'),
  headImportance: z.array(z.array(z.number())).describe('by layer: E|dL/dxi| a head, of length 1 in each layer'),
  rawOutputs: z.array(z.object({ input: z.string(), predicted: z.string() })),
})

/** What the profile of one capability says; the bases are in pca.safetensors beside it. */
export type Profile = z.infer<typeof profileSchema>

/** The JSON Schema of profile.json, as docs/profile.schema.json publishes it. */
export function profileJsonSchema(): object {
  return z.toJSONSchema(profileSchema)
}

/**
 * Checks what a profile.json holds.
 * @throws SyntaxError naming the file and the first field that is wrong.
 */
export function parseProfile(path: string, value: unknown): Profile {
  const result = profileSchema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new SyntaxError(`Cannot read ${path}: ${issue.path.join('.')}: ${issue.message}`)
}
