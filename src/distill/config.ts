import { z } from 'zod'
import { controlNames } from './run.ts'

const whole = z.number().int().positive()
const count = z.number().int().nonnegative()
const positive = z.number().positive()
const share = z.number().gt(0).max(1)
const storage = z.enum(['f32', 'f16', 'nf4', 'nf4-double', 'int8'])

const capability = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z][a-z0-9-]{0,39}$/, { error: 'must be small letters, digits and hyphens, a letter first' })
    .describe('names its adapter'),
  description: z.string().optional().describe('in words for a person; the name of the data file unless told'),
  data: z
    .string()
    .describe('.jsonl, .parquet or .txt to learn from, and to hold items out of where there are no choices'),
  choices: z
    .string()
    .optional()
    .describe(
      '.jsonl of {"prompt", "choices", "answer"} to be scored by, the answer counted from 0; none is learned from',
    ),
  metric: z
    .enum(['acc', 'acc_norm'])
    .default('acc_norm')
    .describe('with choices: the likeliest answer, or the likeliest a character'),
  chance: z.number().min(0).lt(1).default(0).describe('score of a guess at random'),
  retain: share.default(0.97).describe('share of the teacher’s score that must be kept'),
  heldOut: z.number().gt(0).lt(1).default(0.1).describe('share of the data that is scored and not learned'),
  mostItems: whole.optional().describe('held-out items that are scored; all unless told'),
  mostTokens: whole.optional().describe('tokens of the data after which the rest is not read'),
  pack: z.boolean().default(false).describe('short records behind each other in a row'),
  restricted: z.boolean().default(false).describe('answers only a caller who asks for restricted capabilities'),
  rows: whole.default(256).describe('rows that are captured'),
  stepRows: whole.default(2).describe('rows of a training step'),
})

/** A config file of `nexus distill`. */
export const distillConfigSchema = z.strictObject({
  teacher: z.string().describe('folder, GGUF file or name in the cache; files are found from this file’s folder'),
  name: z.string().optional().describe('of the teacher; that of its file unless told'),
  out: z.string().describe('folder of the run, from where the command is started'),
  seed: count.default(42),
  tokens: whole.default(128).describe('of a row, in capture and training'),
  capabilities: z.array(capability).min(1),
  profile: z
    .strictObject({
      samples: whole.default(64).describe('rows a capability'),
      batch: whole.default(4),
      storage: storage.optional(),
      share: positive.default(0.25).describe('what the PCAs may cost, of the forward pass'),
      heldOutTokens: whole.optional().describe('tokens that the loss of a layer is measured on'),
    })
    .prefault({}),
  capture: z
    .strictObject({
      targets: z
        .enum(['top-k', 'sampled', 'online', 'text'])
        .default('top-k')
        .describe('what is kept of the teacher; online keeps it beside the student, text lets it write'),
      topK: z.number().int().min(1).max(64).default(12),
      draws: z.number().int().min(1).max(64).optional(),
      storage: storage.optional(),
      batch: whole.default(4).describe('rows that the teacher is run on at once'),
      shardBytes: whole.default(2 ** 20),
      anchorLayers: whole.default(4),
      anchorRank: whole.default(16),
      relationRank: whole.default(16),
    })
    .prefault({}),
  student: z.strictObject({
    layers: whole.optional().describe('layers kept of the teacher'),
    ffnWidth: whole.optional().describe('hidden channels kept of each FFN'),
    backbone: z.string().optional().describe('another pretrained model to begin with'),
    adapterBudget: z.number().gt(0).max(0.05).default(0.02).describe('parameters of an adapter, of the teacher’s'),
    storage: z.enum(['f16', 'int8', 'nf4']).default('f16'),
  }),
  distil: z
    .strictObject({
      adapterSteps: count.default(10),
      jointSteps: count.default(200),
      recoverySteps: count.default(20),
      recoverEvery: whole.optional().describe('steps between recovery checks; only at the end unless told'),
      checkpointEvery: whole.default(25),
      backboneLr: positive.default(3e-4),
      adapterLr: positive.default(2e-3),
      warmup: whole.default(10),
      alpha: z.number().nonnegative().default(1).describe('weight of the activation anchor at the start'),
      beta: z.number().nonnegative().default(0.2).describe('weight of the attention anchor at the start'),
      reverseFrom: z.number().min(0).max(1).default(1).describe('share of the steps after which the KL is reverse'),
      promptTokens: whole.default(8).describe('tokens of a prompt that the router is fitted on'),
      gradientCheckpoint: z.boolean().default(false),
      freezeEmbedding: z.boolean().default(false),
      stateBits: z.union([z.literal(8), z.literal(32)]).default(32),
    })
    .prefault({}),
  evaluation: z
    .strictObject({
      batch: whole.default(16).describe('items a batch'),
      rankShares: z
        .array(z.number().min(0).lt(1))
        .default([0, 0.25, 0.5])
        .describe('shares of their ranks to which adapters are cut and scored again'),
    })
    .prefault({}),
  controls: z
    .union([z.boolean(), z.array(z.enum(controlNames))])
    .default(false)
    .describe('trains students of the same budget that each lack a part of the method'),
})

/** A config file of `nexus distill`, checked, with what it did not say filled in. */
export type DistillConfig = z.infer<typeof distillConfigSchema>

/** The JSON Schema of a config file, as docs/distill.schema.json publishes it. */
export function distillJsonSchema(): object {
  return z.toJSONSchema(distillConfigSchema, { io: 'input' })
}

/**
 * Checks a config.
 * @param name of the file, for messages.
 * @throws SyntaxError naming every key that is missing, wrong or unknown, with its path.
 */
export function parseDistillConfig(name: string, value: unknown): DistillConfig {
  const result = distillConfigSchema.safeParse(value)
  if (!result.success) {
    const faults = result.error.issues.map(({ path, message }) => `${path.join('.') || 'the file'}: ${message}`)
    throw new SyntaxError(`Cannot read ${name}:\n  ${faults.join('\n  ')}`)
  }
  const config = result.data
  const fault = (path: string, message: string) => new SyntaxError(`Cannot read ${name}:\n  ${path}: ${message}`)
  if (config.student.layers === undefined && config.student.backbone === undefined)
    throw fault('student', 'give layers to keep of the teacher, or a backbone')
  if (config.capture.targets === 'text' && config.student.backbone === undefined)
    throw fault('capture.targets', 'text is for a student of another vocabulary: give student.backbone')
  for (const [i, { name: own }] of config.capabilities.entries())
    if (config.capabilities.findIndex((other) => other.name === own) !== i)
      throw fault(`capabilities.${i}.name`, `${own} stands there twice`)
  if (config.capture.targets === 'sampled' && config.distil.reverseFrom < 1)
    throw fault(
      'distil.reverseFrom',
      'samples have no tail, so their KL cannot be reversed: use targets top-k or online',
    )
  return config
}
