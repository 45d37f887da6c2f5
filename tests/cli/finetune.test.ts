import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
let folder: string
let data: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-cli-finetune-'))
  data = join(folder, 'data.jsonl')
  const lines = Array.from({ length: 40 }, (_, i) =>
    JSON.stringify({ prompt: `double ${i}=`, completion: String(2 * i) }),
  )
  await writeFile(data, lines.join('\n'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

type Event = { event: string; [key: string]: unknown }

function nexus(args: readonly string[], watch?: (event: Event, child: ChildProcess) => void) {
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), 'finetune', ...args], { cwd: root })
  const events: Event[] = []
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return
    const event = JSON.parse(line) as Event
    events.push(event)
    watch?.(event, child)
  })
  return new Promise<{ code: number | null; events: Event[]; stderr: string }>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, events, stderr }))
  })
}

const args = (out: string) => [
  ...['--model', 'models/tiny-teacher', '--data', data, '--out', join(folder, out), '--json'],
  ...['--steps', '8', '--batch', '1', '--length', '32', '--rank', '4', '--eval-every', '4', '--lr', '0.005'],
]

test('Ctrl-C and the same command again end as an uninterrupted run does, kill -9 too', async () => {
  const whole = await nexus(args('whole'))
  expect(whole.code).toBe(0)
  const result = whole.events.at(-1)!
  expect(result).toMatchObject({ event: 'result', steps: 8 })
  expect(result.last as number).toBeLessThan(result.first as number)

  let signalled = false
  const stopped = await nexus(args('cut'), ({ event, task }, child) => {
    if (!signalled && event === 'progress' && task === 'finetune') signalled = child.kill('SIGINT')
  })
  expect(stopped.code).toBe(130)
  expect(stopped.events.at(-1)).toMatchObject({ event: 'error', name: 'InterruptedError' })
  // A checkpoint of what was done, though none was due; then no time to write one.
  expect((await readdir(join(folder, 'cut/checkpoints'))).length).toBeGreaterThanOrEqual(2)
  let killed = false
  await nexus(args('cut'), ({ event, task }, child) => {
    if (!killed && event === 'progress' && task === 'finetune') killed = child.kill('SIGKILL')
  })
  expect(killed).toBe(true)
  expect((await nexus(args('cut'))).code).toBe(0)
  for (const file of ['adapter_model.safetensors', 'adapter_config.json', 'log.jsonl'])
    expect((await readFile(join(folder, 'cut', file))).equals(await readFile(join(folder, 'whole', file))), file).toBe(
      true,
    )
}, 120_000)

test('a dry run gives the plan, and faults name what is wrong', async () => {
  const options = ['--base', 'nf4-double', '--precision', 'f16', '--schedule', 'stable', '--optimizer-bits', '8']
  const plan = await nexus([...args('dry'), ...options, '--accumulate', '2', '--no-packing', '--dry-run'])
  expect(plan.code, plan.stderr).toBe(0)
  expect(plan.events.at(-1)).toMatchObject({ event: 'plan', steps: 8, rows: { train: 38, eval: 2 } })
  expect(plan.events.at(-1)!.diskBytes).toBeGreaterThan(0)
  const bad = join(folder, 'bad.jsonl')
  await writeFile(bad, '{"text":"fine"}\n{"messages":"hello"}\n')
  const fault = await nexus([
    '--model',
    'models/tiny-teacher',
    '--data',
    bad,
    '--out',
    join(folder, 'bad'),
    '--json',
    '--length',
    '32',
  ])
  expect(fault.code).toBe(1)
  expect(fault.events.at(-1)!.message).toContain('bad.jsonl:2: "messages" must be a list of messages')
  const word = await nexus([...args('word'), '--schedule', 'zigzag'])
  expect(word.code).toBe(2)
  expect(word.stderr).toContain('Allowed choices are cosine, linear, stable, constant')
  expect((await nexus(['--model', 'nowhere', '--data', data, '--out', folder])).code).toBe(2)
}, 120_000)
