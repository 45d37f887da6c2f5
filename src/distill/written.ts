import { appendFile, mkdir, truncate } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { InterruptedError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import { exists, readBytes, readJson, sha256, writeJson } from '../host/files.ts'
import { Engine } from '../inference/engine.ts'
import type { Decoder } from '../models/decoder.ts'
import type { OpenModel } from '../models/open-model.ts'
import type { Capability } from '../train/capability.ts'
import { encodingOf } from '../train/data-capability.ts'
import { type NiwtRun, paths } from './run.ts'

const lineSchema = z.object({ prompt: z.string(), completion: z.string() })

/** What a teacher of another vocabulary wrote for one prompt. */
export type Written = z.infer<typeof lineSchema>

/** Prompts that the teacher continues at once. */
const together = 4

/**
 * Lets a teacher continue prompts of a capability, until it ends its answer or has as many tokens as a row. A line of
 * JSONL each, as they come: what a killed run had written stays. Where all are there, texts.json beside it has the hash.
 * @returns what was written, and its sha256.
 * @throws RangeError when the capability has no prompts; SyntaxError when the file is not what its hash says.
 */
export async function writeTexts(
  run: NiwtRun,
  files: OpenModel,
  teacher: Decoder,
  capability: Capability,
): Promise<{ texts: Written[]; hash: string }> {
  const count = run.settings.capture.rows[capability.name]
  const path = paths(run.folder, run.teacherName).texts(capability.name)
  const record = join(dirname(path), `${capability.name}.json`)
  const prompts = capability.written?.prompts ?? []
  if (prompts.length === 0)
    throw new RangeError(`Cannot let the teacher write for ${capability.name}: its data has no prompts`)
  const order = new Random(run.seed + 6).shuffle([...prompts.keys()])
  let texts = await readTexts(path)
  if (exists(record)) {
    const { hash, lines } = (await readJson(record)) as { hash: string; lines: number }
    if (sha256(await readBytes(path)) !== hash || texts.length !== lines)
      throw new SyntaxError(
        `Cannot read ${path}: it is not what its record says. Delete both and run again: they are written anew.`,
      )
    if (lines >= count) return { texts, hash }
  }
  await mkdir(dirname(path), { recursive: true })
  const task = `write ${capability.name}`
  const { tokenizer, bosId } = encodingOf(files)
  const maxTokens = run.settings.tokens
  using engine = new Engine(teacher, {
    tokens: together * 4 * maxTokens,
    contextLength: Math.min(4 * maxTokens, teacher.config.contextLength),
  })
  while (texts.length < count) {
    if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task} at text ${texts.length} of ${count}`)
    const asked = Array.from({ length: Math.min(together, count - texts.length) }, (_, i) => {
      const at = texts.length + i
      return { prompt: prompts[order[at % order.length]], seed: run.seed * 1_000_003 + at }
    })
    const rows = asked.map(({ prompt, seed }) => {
      const ids = [...(bosId === undefined ? [] : [bosId]), ...tokenizer.encode(prompt)].slice(-3 * maxTokens)
      // The first time the likeliest words, then others: the same prompt must not be written twice.
      return { ids, maxTokens, seed, temperature: 0.8, topP: 0.95 }
    })
    const made = rows.map(() => ({ ids: [] as number[], done: false }))
    for await (const tokens of engine.run(rows)) {
      for (const [i, token] of tokens.entries()) {
        if (!token || made[i].done) continue
        if (teacher.config.eosIds.includes(token.id)) made[i].done = true
        else made[i].ids.push(token.id)
      }
      if (made.every(({ done }) => done)) break
    }
    const fresh = asked.map(({ prompt }, i) => ({ prompt, completion: tokenizer.decode(made[i].ids) }))
    await appendFile(path, fresh.map((text) => `${JSON.stringify(text)}\n`).join(''))
    texts = [...texts, ...fresh]
    run.onProgress({ task, done: texts.length, total: count, unit: 'texts' })
  }
  const hash = sha256(await readBytes(path))
  await writeJson(record, { hash, lines: texts.length, teacher: run.teacherName })
  return { texts, hash }
}

/** The whole lines of a file of texts; a torn last line is cut off. */
async function readTexts(path: string): Promise<Written[]> {
  if (!exists(path)) return []
  const text = new TextDecoder().decode(await readBytes(path))
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  if (whole.length < text.length) await truncate(path, new TextEncoder().encode(whole).length)
  return whole
    .split('\n')
    .filter(Boolean)
    .map((line) => lineSchema.parse(JSON.parse(line)))
}

/** A capability whose rows are what the teacher wrote, in the student's tokens. */
export function writtenCapability(capability: Capability, texts: readonly Written[]): Pick<Capability, 'name' | 'row'> {
  const { encode } = capability.written!
  return {
    name: capability.name,
    row(random, tokens) {
      for (let tries = 0; tries < 1000; tries++) {
        const { prompt, completion } = random.pick(texts)
        const row = encode(prompt, completion, tokens)
        if (Array.from(row.weights).some((weight) => weight > 0)) return row
      }
      throw new RangeError(
        `Cannot draw rows of ${tokens} tokens of ${capability.name}: the teacher wrote nothing that fits`,
      )
    },
  }
}
