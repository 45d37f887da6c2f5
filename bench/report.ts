// What `npm run bench -- --json` writes and `--compare` reads.
import { readFileSync } from 'node:fs'
import { z } from 'zod'

const quartiles = z.tuple([z.number(), z.number()])
const timing = z.object({ median: z.number(), quartiles, samples: z.number() })
const rates = { gflops: z.number(), gbs: z.number(), r: z.number(), bound: z.enum(['compute', 'memory']) }

const outcome = z.discriminatedUnion('status', [
  z.object({ status: z.literal('timed'), error: z.number(), theirs: timing, ours: timing }),
  z.object({ status: z.literal('wrong'), error: z.number().nullable() }),
  z.object({ status: z.literal('failed'), reason: z.string() }),
  z.object({ status: z.literal('none') }),
])

const benchFile = z.object({
  format: z.literal('nexus-bench-2'),
  /** What the times were taken in: Node's or the browser's version. */
  host: z.string(),
  adapter: z.string(),
  /** What the driver says of itself, and which driver the Vulkan loader was told to take. */
  driver: z.object({
    vendor: z.string(),
    architecture: z.string(),
    device: z.string(),
    description: z.string(),
    manifest: z.string().nullable(),
  }),
  toggles: z.object({ enabled: z.array(z.string()), disabled: z.array(z.string()) }),
  date: z.string(),
  quick: z.boolean(),
  ceilings: z.object({
    copyGBs: z.number(),
    f32GFLOPs: z.number(),
    f16GFLOPs: z.number().nullable(),
    dispatchMicroseconds: z.number(),
    recordMicroseconds: z.number(),
    replayMicroseconds: z.number(),
    matrixUnits: z.array(
      z.object({
        componentType: z.string(),
        resultComponentType: z.string(),
        M: z.number(),
        N: z.number(),
        K: z.number(),
        gflops: z.number(),
      }),
    ),
  }),
  /** Every op of ours on its own, with how far it is from f64: the result, or with the gradient the gradients. */
  results: z.array(
    z.object({ name: z.string(), ms: z.number(), quartiles, samples: z.number(), error: z.number(), ...rates }),
  ),
  /** Ops that failed their f64 check and were not timed; null is not finite. */
  wrong: z.array(
    z.object({ name: z.string(), error: z.number().nullable(), gradientError: z.number().nullable().optional() }),
  ),
  /** Version of each peer, or why it does not start. */
  peers: z.record(z.string(), z.string()),
  /** Ours beside the peers; `ours` is null where our own result was wrong. */
  comparisons: z.array(
    z.object({
      name: z.string(),
      error: z.number().nullable(),
      ours: timing.extend(rates).nullable(),
      outcomes: z.record(z.string(), outcome),
    }),
  ),
})

/** A bench's results. Errors that are not finite are null in the file. */
export type BenchFile = z.infer<typeof benchFile>

/**
 * Reads what `--json` wrote.
 * @throws SyntaxError when it cannot be read or is not a bench file.
 */
export function readBenchFile(path: string): BenchFile {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new SyntaxError(`Cannot read the bench file ${path}: ${(error as Error).message}`)
  }
  const parsed = benchFile.safeParse(value)
  if (parsed.success) return parsed.data
  const [{ path: at, message }] = parsed.error.issues
  throw new SyntaxError(
    `Cannot read ${path} as a bench file: ${at.join('.') || 'the whole'}: ${message}. ` +
      'Make one with: npm run bench -- --json <file>',
  )
}
