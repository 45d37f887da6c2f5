import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VerifyReport } from '../../src/bundle/verify.ts'
import { runIsolated } from '../../src/cli/isolation.ts'
import { FolderFiles } from '../../src/host/files.ts'
import { tinyBundle } from '../bundle/tiny-bundle.ts'

// Bundles from the command line: real processes, real exit codes.

const root = join(import.meta.dirname, '../..')
let folder: string
const at = (name: string) => join(folder, name)
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-bundle-cli-'))
  await put('bundle', await tinyBundle({ restricted: ['code'] }))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function put(name: string, { contents }: Awaited<ReturnType<typeof tinyBundle>>): Promise<void> {
  const files = new FolderFiles(at(name))
  for (const [path, bytes] of contents) await files.write(path, bytes)
}

async function nexus(...args: string[]) {
  const child = spawn(process.execPath, [join(root, 'bin/nexus.mjs'), ...args, '--json'])
  let stdout = ''
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
  })
  const code = await new Promise((done) => child.on('close', done))
  const last = stdout.trim().split('\n').at(-1)!
  return { code, last: (last.startsWith('{') ? JSON.parse(last) : {}) as Record<string, unknown> }
}

test('keys are made, a bundle is signed, packed as .zip, verified and asked; a stranger’s key is refused', async () => {
  const [made] = await Promise.all([
    nexus('keys', 'new', at('key')),
    nexus('keys', 'new', at('other'), '--scheme', 'ed25519'),
  ])
  expect(made.code).toBe(0)
  expect((await stat(at('key'))).mode & 0o777).toBe(0o600)
  const [again, unsigned] = await Promise.all([
    nexus('keys', 'new', at('key')),
    nexus('verify', at('bundle'), '--key', at('key.pub')),
  ])
  expect(again).toMatchObject({ code: 2, last: { name: 'UsageError' } })
  expect(unsigned).toMatchObject({ code: 4, last: { signature: 'invalid' } })
  expect((await nexus('sign', at('bundle'), '--key', at('key'))).code).toBe(0)
  const [packed, stranger] = await Promise.all([
    nexus('pack', at('bundle'), '--zip', at('a.zip')),
    nexus('verify', at('bundle'), '--key', at('other.pub')),
  ])
  expect([packed.code, stranger.code]).toEqual([0, 4])

  const lines = spawn(process.execPath, [
    join(root, 'bin/nexus.mjs'),
    'run',
    at('a.zip'),
    '--max-tokens',
    '2',
    '--json',
  ])
  lines.stdin.end('abc\n\nxyz\n')
  const told = (await lines.stdout.map(String).toArray()).join('').trim().split('\n')
  expect(told.map((line) => JSON.parse(line)).filter(({ event }) => event === 'answer')).toHaveLength(2)
  const ask = (...more: string[]) => nexus('generate', at('a.zip'), '--prompt', 'abc', '--max-tokens', '2', ...more)
  const cut = at('cut.zip')
  const bytes = await readFile(at('a.zip'))
  await writeFile(cut, bytes.subarray(0, bytes.length - 10))
  const [verified, truncated, answered, refused, closed] = await Promise.all([
    nexus('verify', at('a.zip'), '--key', at('key.pub')),
    nexus('verify', cut),
    ask('--capability', 'code', '--restricted', '--key', at('key.pub')),
    ask('--key', at('other.pub')),
    ask('--capability', 'code'),
  ])
  expect(verified).toMatchObject({ code: 0, last: { signature: 'valid' } })
  expect(truncated).toMatchObject({ code: 4, last: { name: 'BundleError' } })
  expect(answered).toMatchObject({ code: 0, last: { event: 'answer', capability: 'code' } })
  expect([refused.code, closed.code]).toEqual([4, 1])
}, 120_000)

test('packed again in NF4 it verifies and says that it was measured otherwise', async () => {
  const [made, there, nowhere] = await Promise.all([
    nexus('pack', at('bundle'), '--storage', 'nf4', '--out', at('nf4')),
    nexus('pack', at('bundle'), '--out', at('bundle')),
    nexus('pack', at('bundle')),
  ])
  expect([made.code, there.code, nowhere.code]).toEqual([0, 2, 2])
  const { code, last } = await nexus('verify', at('nf4'))
  expect(code).toBe(0)
  expect((last as unknown as VerifyReport).notes.join()).toContain('add was measured with the backbone in f16')
}, 60_000)

test('it runs on its own, and the report says so as HTML, JSON and text', async () => {
  const write = (name: string) => nexus('verify', at('bundle'), '--report', at(name))
  const [{ code, last }, , , odd] = await Promise.all([
    nexus('verify', at('bundle'), '--teacher-free', '--report', at('report.html')),
    ...['report.json', 'report.txt', 'report.pdf'].map(write),
  ])
  expect(code).toBe(0)
  expect(odd.code).toBe(2)
  const report = last as unknown as VerifyReport
  expect(report.checks.at(-1)).toEqual({ name: 'runs on its own', ok: true, reason: '' })
  expect(report.notes.join()).toMatch(/On its own, add answered ".+On its own, code answered "/)
  const html = await readFile(at('report.html'), 'utf8')
  expect(html).toContain('<h1 class="ok">Verified</h1>')
  expect(html).toContain(report.bundleId)
  expect(html).not.toMatch(/<script|src=|href=|@import|url\(/)
  expect(JSON.parse(await readFile(at('report.json'), 'utf8'))).toMatchObject({ ok: true, bundleId: report.bundleId })
  expect(await readFile(at('report.txt'), 'utf8')).toContain('The bundle is whole')
}, 60_000)

test('the process that runs it sees no network and no neighbour, or says so', async () => {
  const outward = Object.values(networkInterfaces()).some((all) => all?.some(({ internal }) => !internal))
  const withNetwork = outward ? [expect.stringContaining('had a network')] : []
  const ways = [
    ['unshare', '-r', '-n', 'true'],
    ['unshare', '-n', 'true'],
    ['bwrap', '--dev-bind', '/', '/', '--unshare-net', 'true'],
  ]
  const alone = ways.some(([name, ...args]) => spawnSync(name, args).status === 0)
  expect(await runIsolated(at('bundle'))).toMatchObject({ fault: '', notes: alone ? [] : withNetwork })
  const path = process.env.PATH
  try {
    process.env.PATH = '/nowhere'
    expect(await runIsolated(at('bundle'))).toMatchObject({ fault: '', notes: withNetwork })
  } finally {
    process.env.PATH = path
  }
})

test('a bundle whose weights are no numbers is whole but does not run', async () => {
  await put('broken', await tinyBundle({ deviation: Number.NaN }))
  const [whole, run] = await Promise.all([
    nexus('verify', at('broken')),
    nexus('verify', at('broken'), '--teacher-free'),
  ])
  expect([whole.code, run.code]).toEqual([0, 4])
  const failed = (run.last as unknown as VerifyReport).checks.at(-1)
  expect(failed).toMatchObject({ ok: false, reason: expect.stringContaining('not finite') })
}, 60_000)

test('the file names and sizes in a hostile report are text, not HTML', async () => {
  const { reportHtml } = await import('../../src/bundle/report.ts')
  const check = { name: 'x', ok: false, reason: '<img src=x onerror=alert(1)>' }
  const html = reportHtml({ ok: false, bundleId: '"><b>', signature: 'none', checks: [check], notes: ['<i>'] })
  expect(html).not.toMatch(/<img|<b>|<i>/)
  expect(html).toContain('&lt;img src=x onerror=alert(1)&gt;')
})
