import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { HubServer } from '../host/hub-server.ts'

const root = join(import.meta.dirname, '../..')
const teacher = join(root, 'models/tiny-teacher')
const work = mkdtempSync(join(tmpdir(), 'nexus-models-'))
let hub: HubServer
beforeAll(async () => {
  hub = await HubServer.start()
  const names = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors']
  hub.models.set('some/tiny', new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(teacher, name)))])))
})
afterAll(async () => {
  await hub.stop()
  rmSync(work, { recursive: true, force: true })
})

function nexus(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const env = { ...process.env, NEXUS_MODELS: join(work, 'cache'), HF_ENDPOINT: hub.url, HF_TOKEN: '' }
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), ...args], { cwd: work, env })
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].on('data', (chunk: Buffer) => {
      said[stream] += chunk.toString()
    })
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...said })))
}

test('pulled, listed, shown, converted by its name without the hub, shown again, deleted', async () => {
  const pulled = await nexus('pull', 'some/tiny')
  expect(pulled).toMatchObject({ code: 0, stderr: expect.stringContaining('some/tiny: 4 files, 2.21 MB') })
  expect(existsSync(join(pulled.stdout.trim(), 'config.json'))).toBe(true)
  hub.models.clear()
  const listed = JSON.parse((await nexus('cache', 'ls', '--json')).stdout) as { models: { id: string }[] }
  expect(listed.models.map(({ id }) => id)).toEqual(['some/tiny'])

  const shown = await nexus('show', 'some/tiny')
  expect(shown.code).toBe(0)
  for (const line of [/architecture +LlamaForCausalLM/, /parameters +1\.1 M, 2\.20 MB, 16\.00 bits each/, /runs +yes/])
    expect(shown.stdout).toMatch(line)
  expect(shown.stdout.split('\n').filter((line) => line.includes('up_proj'))).toHaveLength(1)

  const converted = await nexus('convert', 'tiny', 'nf4', '--to', 'nf4', '--shard-size', '200KB', '--json')
  expect(converted.code).toBe(0)
  const event = JSON.parse(converted.stdout.trim().split('\n').at(-1)!) as { files: string[] }
  expect(event).toMatchObject({ event: 'converted', quantized: 42 })
  expect(event.files.length).toBeGreaterThan(2)
  const facts = JSON.parse((await nexus('show', 'nf4', '--tensors', '--json')).stdout) as { tensors: object[] }
  expect(facts).toMatchObject({ event: 'model', opens: true, quantization: 'nf4 of bitsandbytes' })
  expect(facts.tensors.length).toBe(14 + 42 * 4)

  expect((await nexus('cache', 'rm', 'tiny')).stdout).toContain('some/tiny is deleted')
}, 60_000)

test('exit codes and one line each: damage 1, wrong words 2', async () => {
  const path = join(work, 'broken.gguf')
  writeFileSync(path, 'GGUF\u0003')
  const broken = await nexus('show', path)
  expect([broken.code, broken.stdout]).toEqual([1, ''])
  expect(broken.stderr).toMatch(/^nexus: .*broken\.gguf: Cannot read GGUF: .*\n$/)
  for (const [args, reason] of [
    [['show', 'nothing/here'], 'nexus pull nothing/here'],
    [['show', './nothing.gguf'], 'none that was pulled.\n'],
    [['convert', teacher, 'x', '--to', 'q4'], 'Allowed choices are f16, bf16, f32, nf4, nf4-double, int8'],
    [['convert', teacher, 'x', '--to', 'f16', '--shard-size', 'big'], '5GB'],
    [['convert', teacher, '.', '--to', 'f16'], 'there already'],
    [['generate', teacher, '--prompt', 'a'], 'is a model, not a bundle. Continue a text with: nexus chat'],
    [['pull', './nothing'], 'there is no such file or folder'],
  ] as const) {
    const ran = await nexus(...args)
    expect([ran.code, ran.stdout]).toEqual([2, ''])
    expect(ran.stderr).toContain(reason)
  }
  const text = join(work, 'words.txt')
  writeFileSync(text, 'These are words.')
  for (const [command, reason] of [
    ['chat', 'words.txt: it is no GGUF file; of a Hugging Face model give the folder'],
    ['show', 'it is another kind of file, or damaged'],
  ]) {
    const other = await nexus(command, text)
    expect([other.code, other.stderr.split('\n').length]).toEqual([1, 2])
    expect(other.stderr).toContain(reason)
  }
  const far = await nexus('perplexity', teacher, join(import.meta.dirname, '../../README.md'))
  expect(far.stderr).toMatch(/^nexus: Cannot encode "# Nexus.{0,60}…": the vocabulary lacks .*\n$/)
  expect((await nexus('profile', '--help')).stdout).not.toMatch(/default: (\[|\{|false)/)
  const missing = await nexus('pull', 'nothing/here', '--json')
  expect(missing.code).toBe(1)
  expect(JSON.parse(missing.stdout)).toMatchObject({ event: 'error', name: 'NetworkError' })
}, 60_000)

test('chat follows a schema or chooses; what is cut, refused or too long says so', async () => {
  const chat = (...args: string[]) => nexus('chat', teacher, '--raw', '--storage', 'f32', '--prompt', '#', ...args)
  const file = join(work, 'schema.json')
  const properties = { name: { type: 'string', maxLength: 6 }, age: { type: 'integer', minimum: 0, maximum: 150 } }
  writeFileSync(file, JSON.stringify({ type: 'object', properties, required: ['name', 'age'] }))
  const whole = await chat('--schema', file, '--max-tokens', '100')
  expect(whole.code).toBe(0)
  const { name, age, ...others } = JSON.parse(whole.stdout) as Record<string, unknown>
  expect([typeof name, Number.isInteger(age), others]).toEqual(['string', true, {}])
  const cut = await chat('--schema', file, '--max-tokens', '5', '--json')
  expect(cut.code).toBe(1)
  expect(JSON.parse(cut.stdout.trim().split('\n').at(-1)!)).toMatchObject({
    event: 'answer',
    finish: 'length',
    tokens: 5,
  })
  expect(['yes', 'no']).toContain((await chat('--choice', 'yes', '--choice', 'no')).stdout.trim())

  writeFileSync(file, '{"type": "object", "patternProperties": {}}')
  const refused = await chat('--schema', file)
  expect([refused.code, refused.stdout]).toEqual([2, ''])
  expect(refused.stderr).toContain('Cannot follow the schema at #: patternProperties is not supported')
  const wrong = [
    ['--max-tokens', '1.5'],
    ['--schema', file, '--choice', 'a'],
  ]
  expect(await Promise.all(wrong.map(async (args) => (await chat(...args)).code))).toEqual([2, 2])
  const long = await nexus('chat', teacher, '--raw', '--storage', 'f32', '--context', '64', '--prompt', 'a'.repeat(99))
  expect(long).toMatchObject({ code: 1, stderr: expect.stringContaining('has 99 tokens and the context 64') })
}, 120_000)
