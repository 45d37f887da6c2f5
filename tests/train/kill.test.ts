import { spawn } from 'node:child_process'
import { existsSync, type FSWatcher, mkdirSync, watch } from 'node:fs'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'

// Runs that are killed at any moment end, when they are started again, with the bytes of one that was left alone.
// NEXUS_KILLS=0-19 kills twenty runs of each kind, each a run of its own; here one run is killed five times.

const root = join(import.meta.dirname, '../..')
const [first, last] = (process.env.NEXUS_KILLS ?? '0--1').split(/(?<=\d)-/).map(Number)
const kills = last - first + 1
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-kill-'))
  const lines = Array.from({ length: 40 }, (_, i) => JSON.stringify({ prompt: `${i}+1=`, completion: `${i + 1}` }))
  await writeFile(join(folder, 'data.jsonl'), lines.join('\n'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** When a process is to die: so many milliseconds after its start, a step, or the first sight of a file's being written. */
interface Moment {
  readonly after: 'start' | 'step' | 'checkpoint' | 'log' | 'result'
  readonly milliseconds: number
}

/** Moments of all kinds in turn, drawn with a seed: `begin` to `end` of them. */
function moments(begin: number, end: number): Moment[] {
  const random = new Random(17)
  const kinds = ['checkpoint', 'step', 'log', 'start', 'result'] as const
  const longest = { checkpoint: 4, step: 150, log: 2, start: 1500, result: 3 }
  const all = Array.from({ length: end }, (_, i) => {
    const after = kinds[i % kinds.length]
    return { after, milliseconds: random.uniform() * longest[after] }
  })
  return all.slice(begin)
}

/** What a command's files are called. */
interface Command {
  readonly task: string
  readonly args: (out: string) => string[]
  readonly checkpoints: string
  readonly log: string
  readonly results: readonly string[]
  /** The file with which the work ends, where the command would go on: it is stopped then. */
  readonly last?: string
}

/** Runs a command, and kills it at `moment`. @returns whether it was killed before it ended. */
async function run(command: Command, out: string, moment?: Moment): Promise<boolean> {
  const watchers: FSWatcher[] = []
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), ...command.args(out), '--json'], { cwd: root })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.on('close', (code, signal) => resolve({ code, signal })),
  )
  let armed = moment !== undefined
  const strike = () => {
    if (!armed) return
    armed = false
    if (moment!.milliseconds < 1) child.kill('SIGKILL')
    else setTimeout(() => child.kill('SIGKILL'), moment!.milliseconds)
  }
  const sees = (path: string, name: RegExp) => {
    mkdirSync(path, { recursive: true })
    watchers.push(watch(path, (_, file) => void (file && name.test(file) && strike())))
  }
  let finished = false
  if (command.last !== undefined) {
    const path = join(out, command.last)
    mkdirSync(dirname(path), { recursive: true })
    const watcher = watch(dirname(path), () => {
      if (!existsSync(path)) return
      finished = true
      child.kill('SIGKILL')
    })
    watchers.push(watcher)
  }
  if (moment?.after === 'start') strike()
  if (moment?.after === 'checkpoint') sees(join(out, command.checkpoints), /^(step|index).*\.part$/)
  if (moment?.after === 'log') sees(out, new RegExp(`^${command.log}$`))
  if (moment?.after === 'result') sees(dirname(join(out, command.results[0])), /^(adapter|backbone).*\.part$/)
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = line.startsWith('{')
      ? (JSON.parse(line) as { event: string; task?: string; done?: number })
      : undefined
    if (moment?.after === 'step' && event?.event === 'progress' && event.task === command.task) strike()
  })
  const { code, signal } = await ended
  for (const watcher of watchers) watcher.close()
  if (signal !== 'SIGKILL') expect(code, stderr).toBe(0)
  return signal === 'SIGKILL' && !finished
}

async function expectSame(command: Command, out: string, whole: string) {
  for (const file of [...command.results, command.log])
    expect((await readFile(join(out, file))).equals(await readFile(join(whole, file))), `${out}: ${file}`).toBe(true)
}

const finetune: Command = {
  task: 'finetune',
  args: (out) => [
    ...['finetune', '--model', 'models/tiny-teacher', '--data', join(folder, 'data.jsonl'), '--out', out],
    ...['--steps', '14', '--batch', '1', '--length', '32', '--rank', '4', '--eval-every', '3', '--lr', '0.005'],
    ...['--checkpoint-every', '2', '--accumulate', '2', '--optimizer-bits', '8'],
  ],
  checkpoints: 'checkpoints',
  log: 'log.jsonl',
  results: ['adapter_model.safetensors', 'adapter_config.json'],
}

test('a fine-tuning run that is killed again and again ends as one that is left alone', async () => {
  const whole = join(folder, 'whole')
  await run(finetune, whole)
  const all = kills > 0 ? moments(first, last + 1) : moments(0, 5)
  const runs = kills > 0 ? all.map((moment) => [moment]) : [all]
  let killed = 0
  for (const [i, own] of runs.entries()) {
    const out = join(folder, `cut ${i}`)
    for (const moment of own) {
      const before = killed
      killed += (await run(finetune, out, moment)) ? 1 : 0
      if (kills > 0)
        console.log(`finetune ${i}: ${moment.after} + ${moment.milliseconds.toFixed(1)} ms, killed ${killed > before}`)
    }
    await run(finetune, out)
    await expectSame(finetune, out, whole)
  }
  expect(killed).toBeGreaterThanOrEqual(0.8 * all.length)
}, 1_200_000)

test.runIf(kills > 0)(
  'a distillation that is killed while it trains ends as one that is left alone',
  async () => {
    const distil: Command = {
      task: 'distil',
      args: (out) => ['demo', '--quick', '--steps', '10', '--folder', out],
      checkpoints: 'checkpoints',
      log: 'distil_log.jsonl',
      results: ['backbone', 'router', 'adapters/add', 'adapters/code', 'adapters/prose'].map(
        (name) => `student/${name}.safetensors`,
      ),
      last: 'stages/4-distil.json',
    }
    // Everything before the stage is done once.
    const before = join(folder, 'before')
    await run({ ...distil, last: 'stages/3-synthesize.json' }, before)
    await rm(join(before, 'checkpoints'), { recursive: true, force: true })
    await rm(join(before, distil.log), { force: true })
    const whole = join(folder, 'distilled')
    await cp(before, whole, { recursive: true })
    await run(distil, whole)
    let killed = 0
    for (const [i, moment] of moments(first, last + 1).entries()) {
      const out = join(folder, `distilled ${i}`)
      await cp(before, out, { recursive: true })
      const hit = await run(distil, out, moment)
      killed += hit ? 1 : 0
      console.log(`distil ${i}: ${moment.after} + ${moment.milliseconds.toFixed(1)} ms, killed ${hit}`)
      await run(distil, out)
      await expectSame(distil, out, whole)
      await rm(out, { recursive: true })
    }
    expect(killed).toBeGreaterThanOrEqual(0.8 * kills)
  },
  3_600_000,
)
