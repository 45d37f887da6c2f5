import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeSums, writeTeacher } from '../profile/tiny-data.ts'

const run = promisify(execFile)
const bin = join(import.meta.dirname, '../../bin/nexus.mjs')
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-test-'))
})
afterAll(() => rm(folder, { recursive: true }))

const nexus = (...words: string[]) => {
  const env = { ...process.env, NEXUS_MODELS: join(folder, 'cache') }
  return run(process.execPath, [bin, ...words], { cwd: folder, timeout: 100_000, env })
}

test('profile, merge and report from the command line', async () => {
  // Each command knows a teacher by its path and by its name in the cache.
  const teacher = await writeTeacher(join(folder, 'cache/small'))
  const data = await writeSums(join(folder, 'sums.jsonl'))
  await writeFile(join(folder, 'profile.json'), JSON.stringify({ capabilities: [{ name: 'sums', data }] }))
  const common = ['--samples', '8', '--length', '16', '--head-samples', '2', '--held-out-tokens', '32']
  for (const shard of ['1/2', '2/2'])
    await nexus('profile', 'small', '--config', 'profile.json', ...common, '--shard', shard, '--out', `s${shard[0]}`)
  const parts = ['s1', 's2'].map((name) => join(folder, name, 'niwt_stage2_output/profiles/small'))
  const { stdout } = await nexus('profile', 'merge', ...parts, '--teacher', 'small', '--out', 'all', '--json')
  const { folder: merged } = JSON.parse(stdout.trim().split('\n').at(-1)!) as { folder: string }
  const profile = JSON.parse(await readFile(join(folder, merged, 'sums/profile.json'), 'utf8'))
  expect(profile.samples).toBe(8)
  await rm(join(folder, merged, 'report.html'))
  await nexus('profile', 'report', merged)
  const report = await readFile(join(folder, merged, 'report.html'), 'utf8')
  expect(report).toContain('Rank by layer and module')
  // Self-contained: nothing is loaded, nothing runs.
  expect(report).not.toMatch(/<script|<link|src=|url\(|@import/)
  await expect(nexus('profile', teacher, '--data', data)).rejects.toMatchObject({ code: 2 })
  await expect(nexus('profile', 'other', '--data', data, '--capability', 'c')).rejects.toMatchObject({
    ...{ code: 2, stderr: expect.stringContaining('There is no model other') },
  })
}, 180_000)
