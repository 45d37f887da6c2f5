import { type ChildProcess, spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'

// The command line as a person runs it: real processes, real exit codes.

const root = join(import.meta.dirname, '../..')
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-cli-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

interface Ran {
  readonly code: number | null
  readonly events: { event: string; [key: string]: unknown }[]
  readonly stderr: string
}

function nexus(
  args: readonly string[],
  watch?: (event: { event: string; task?: string }, child: ChildProcess) => void,
): Promise<Ran> {
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), ...args], { cwd: root })
  const events: Ran['events'] = []
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return
    const event = JSON.parse(line) as { event: string }
    events.push(event)
    watch?.(event, child)
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, events, stderr }))
  })
}

const last = ({ events }: Ran) => events[events.length - 1]

test('the whole run: interrupted, resumed to the end, verified, generated from, and refused after tampering', async () => {
  const run = join(folder, 'run')
  const demo = ['demo', '--quick', '--json', '--folder', run]
  let stopped = false
  const first = await nexus(demo, ({ event, task }, child) => {
    if (!stopped && event === 'progress' && task === 'distil') stopped = child.kill('SIGINT')
  })
  expect(stopped).toBe(true)
  expect(first.code).toBe(130)
  expect(last(first)).toMatchObject({ event: 'error', name: 'InterruptedError' })

  // The profile is done and is not done again.
  const second = await nexus(demo)
  expect(second.events.some(({ task }) => String(task).startsWith('profile'))).toBe(false)
  const result = last(second) as {
    event: string
    verdict?: string
    capabilities?: Record<string, { n: number; verdict: string }>
  }
  expect(result.event).toBe('result')
  // Six steps teach a student too little: the gate must say so, and the exit code too.
  expect(result.verdict).toBe('fail')
  expect(second.code).toBe(1)
  expect(Object.keys(result.capabilities!)).toEqual(['add', 'code', 'prose'])
  for (const { n } of Object.values(result.capabilities!)) expect(n).toBeGreaterThanOrEqual(1200)

  const status = await nexus(['niwt', 'status', '--json', '--folder', run])
  expect(
    (last(status) as unknown as { stages: { state: string }[] }).stages.every(({ state }) => state === 'done'),
  ).toBe(true)

  const bundle = join(run, 'nexus_bundle_v1')
  const verified = await nexus(['verify', bundle, '--json'])
  expect(verified.code).toBe(0)

  // The interrupted run and one that was left alone give the same bundle: one seed, one result.
  const alone = join(folder, 'alone')
  await nexus(['demo', '--quick', '--json', '--folder', alone])
  const again = await nexus(['verify', join(alone, 'nexus_bundle_v1'), '--json'])
  expect(last(again).bundleId).toBe(last(verified).bundleId)
  const generate = ['generate', bundle, '--json', '--capability', 'code', '--prompt', '#rbach>', '--max-tokens', '8']
  const [one, two] = [await nexus(generate), await nexus(generate)]
  expect(one.code).toBe(0)
  expect(last(one)).toMatchObject({ event: 'answer', capability: 'code', text: last(two).text })
  expect((await nexus(['generate', bundle, '--json', '--capability', 'sing', '--prompt', 'a'])).code).toBe(1)
  expect((await nexus(['generate', bundle, '--json', '--prompt', 'naïve'])).code).toBe(1)

  // Another seed in the same folder breaks the scope lock.
  const other = await nexus([...demo, '--seed', '43'])
  expect(other.code).toBe(1)
  expect(last(other)).toMatchObject({ event: 'error', name: 'RuleError' })

  const adapter = join(bundle, 'adapters/add.safetensors')
  const bytes = await readFile(adapter)
  bytes[bytes.length - 1] ^= 1
  await writeFile(adapter, bytes)
  const tampered = await nexus(['verify', bundle, '--json'])
  expect(tampered.code).toBe(4)
  expect((await nexus(generate)).code).toBe(4)
}, 400_000)

test('wrong words end with 2 and say what is wrong', async () => {
  const unknown = await nexus(['sing'])
  expect(unknown.code).toBe(2)
  expect(unknown.stderr).toContain("unknown command 'sing'")
  expect((await nexus(['generate'])).code).toBe(2)
  expect((await nexus(['demo', '--steps', 'many'])).stderr).toContain('give a number')
  expect((await nexus(['niwt', 'status', '--folder', join(folder, 'nowhere')])).code).toBe(2)
  expect((await nexus(['--help'])).code).toBe(0)
})

test('a truncated, a lying and a missing teacher, and contracts that name what is not there, are refused', async () => {
  const teacher = join(folder, 'teacher')
  await cp(join(root, 'models/tiny-teacher'), teacher, { recursive: true })
  const run = (extra: readonly string[] = []) =>
    nexus(['demo', '--quick', '--json', '--fresh', '--folder', join(folder, 'bad'), '--teacher', teacher, ...extra])
  const weights = join(teacher, 'model.safetensors')
  const good = await readFile(weights)

  await writeFile(weights, good.subarray(0, 100_000))
  const truncated = await run()
  expect(truncated.code).toBe(1)
  expect(last(truncated).message).toContain('the file is truncated')

  await writeFile(weights, good)
  const config = join(teacher, 'config.json')
  const text = await readFile(config, 'utf8')
  await writeFile(config, text.replace('"num_hidden_layers": 6', '"num_hidden_layers": 7'))
  expect(last(await run()).message).toContain(
    `${teacher}: Cannot load the model: model.layers.6.input_layernorm.weight needs the tensor model.layers.6.input_layernorm.weight, which the file lacks`,
  )
  await writeFile(config, text.replace('"model_type": "llama"', '"model_type": "banana"'))
  expect(last(await run()).message).toContain('model_type is "banana"; supported are llama')
  await rm(weights)
  expect(last(await run()).message).toContain('Cannot read')

  const contracts = join(folder, 'contracts.md')
  await writeFile(
    contracts,
    '| capability | benchmark | metric | retain_fraction |\n|---|---|---|---|\n| sing | x | y | |\n',
  )
  const unknown = await nexus(['demo', '--quick', '--json', '--folder', join(folder, 'bad2'), '--contracts', contracts])
  expect(unknown.code).toBe(1)
  expect(last(unknown).message).toContain('capability "sing" is unknown')
}, 120_000)

test('doctor finds an adapter and proves it', async () => {
  const doctor = await nexus(['doctor', '--json'])
  expect(doctor.code).toBe(0)
  expect(last(doctor)).toMatchObject({ event: 'doctor', works: true })
  const absent = await nexus(['doctor', '--adapter', 'no such adapter'])
  expect(absent.code).toBe(1)
})
