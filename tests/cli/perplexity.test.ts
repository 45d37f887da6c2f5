import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import '../../src/kernels/add.ts'
import { measurePerplexity } from '../../src/inference/perplexity.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { openModel } from '../../src/models/open-model.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const root = join(import.meta.dirname, '../..')
const teacher = join(root, 'models/tiny-teacher')
const work = mkdtempSync(join(tmpdir(), 'nexus-perplexity-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))

function nexus(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), ...args], { cwd: work })
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].on('data', (chunk: Buffer) => {
      said[stream] += chunk.toString()
    })
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...said })))
}

test('nexus perplexity measures what the library measures, and refuses a text of one token', { timeout: 180_000 }, () =>
  withoutLeaks(async () => {
    const text = 'Call me Ishmael. Some years ago, never mind how long precisely, having little or no money'
    writeFileSync(join(work, 'text.txt'), text)
    writeFileSync(join(work, 'short.txt'), 'a')
    const [made, short] = await Promise.all([
      nexus('perplexity', teacher, 'text.txt', '--context', '40', '--stride', '30', '--json'),
      nexus('perplexity', teacher, 'short.txt'),
    ])
    expect([short.code, short.stdout]).toEqual([2, ''])
    expect(short.stderr).toContain('it has 1 tokens and needs two or more')
    const events = made.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    await using files = await openModel(teacher)
    using model = await Decoder.open(gpu, files.weights)
    const ids = files.tokenizer.encode(text)
    const want = await measurePerplexity(model, ids, { context: 40, stride: 30, bosId: files.bosId })
    expect(want.windows).toBe(3)
    expect(events.at(-1)).toMatchObject({ event: 'perplexity', tokens: ids.length - 1, windows: 3 })
    expect(events.at(-1)!.perplexity).toBeCloseTo(want.perplexity, 4)
    expect(events.some(({ event, task }) => event === 'progress' && task === 'perplexity')).toBe(true)
  }),
)
