import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exitCodeOf, InterruptedError, ResourceError, RuleError, UsageError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { planAnchors, refuseRaw } from '../../src/distill/anchors.ts'
import { gateStage } from '../../src/distill/gate.ts'
import { parseRegistry } from '../../src/distill/registry.ts'
import { retention } from '../../src/distill/retention.ts'
import { type NiwtRun, runStages } from '../../src/distill/run.ts'
import { lockScope, parseContracts, type ScopeLock } from '../../src/distill/scope.ts'
import { FolderFiles, readJson, writeFileAtomic } from '../../src/host/files.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-test-'))
})
afterAll(() => rm(folder, { recursive: true }))

describe('contracts', () => {
  const contracts = (rows: string, header = '| capability | benchmark | metric | retain_fraction |') =>
    parseContracts(`# Contracts\n\n${header}\n|---|---|---|---|\n${rows}\n`, ['add', 'prose'])

  test('are read, with 0.97 where no fraction is given', () => {
    expect(contracts('| add | sums | exact_match | |\n| prose | book | bits | 0.9 |')).toEqual([
      { capability: 'add', benchmark: 'sums', metric: 'exact_match', retainFraction: 0.97 },
      { capability: 'prose', benchmark: 'book', metric: 'bits', retainFraction: 0.9 },
    ])
  })
  test.each([
    ['| sing | x | y | |', 'line 5: capability "sing" is unknown; known are add, prose'],
    ['| add | x | | |', 'line 5: metric is empty'],
    ['| add | x | y |', 'line 5: it has 3 cells, the header 4'],
    ['| add | x | y | 1.5 |', 'line 5: retain_fraction must be above 0 and at most 1'],
    ['| add | x | y | |\n| add | x | y | |', 'line 6: add has two contracts'],
    ['', 'the table has no rows'],
  ])('%j is refused', (rows, reason) => expect(() => contracts(rows)).toThrow(reason))
  test('a missing column and a missing table are refused', () => {
    expect(() => contracts('', '| capability | metric |')).toThrow('line 3: the column benchmark is missing')
    expect(() => parseContracts('nothing', [])).toThrow(SyntaxError)
  })
})

describe('registry', () => {
  const csv = (rows: string) => parseRegistry(`ModelName,Parameters,Category,BestFeature\n${rows}\n`)
  test('is read', () => {
    expect(csv('a,1.1M,language,"x, y"\nb,7B,code,z')).toEqual([
      { name: 'a', parameters: 1.1e6, category: 'language', bestFeature: 'x, y' },
      { name: 'b', parameters: 7e9, category: 'code', bestFeature: 'z' },
    ])
  })
  test.each([
    ['a,1M,language', 'columns'],
    ['a,,language,x', 'line 2: Parameters'],
    ['a,many,language,x', 'must be a number'],
    ['a,1M,language,x\na,1M,language,x', 'line 3: a appears twice'],
    ['', 'names no teacher'],
  ])('%j is refused', (rows, reason) => expect(() => csv(rows)).toThrow(reason))
})

test('the scope may not change once it is locked', async () => {
  const path = join(folder, 'scope.lock.json')
  const lock: ScopeLock = { contracts: [], datasets: { add: 'x' }, data: {}, teacher: 't', seed: 42, settings: {} }
  await lockScope(path, lock)
  await lockScope(path, lock)
  await expect(lockScope(path, { ...lock, seed: 43 })).rejects.toThrow(RuleError)
  await expect(lockScope(path, { ...lock, seed: 43 })).rejects.toThrow('seed changed since this run began')
})

describe('retention', () => {
  const pairs = (n: number, both: number, lost: number, won: number) => {
    const fill = (t: number, s: number, count: number) => Array.from({ length: count }, () => [t, s] as const)
    const all = [...fill(1, 1, both), ...fill(1, 0, lost), ...fill(0, 1, won)]
    return [...all, ...fill(0, 0, n - all.length)]
  }
  const measure = (rows: (readonly [number, number])[], clusterSize = 1) =>
    retention(
      rows.map(([t]) => t),
      rows.map(([, s]) => s),
      { required: 0.97, clusterSize },
    )

  test('passes, fails and cannot decide', () => {
    expect(measure(pairs(1600, 1590, 5, 0)).verdict).toBe('pass')
    expect(measure(pairs(1600, 1400, 195, 0)).verdict).toBe('fail')
    expect(measure(pairs(200, 150, 8, 3)).verdict).toBe('inconclusive')
  })
  test('the bound is that of the paired ratio, by hand', () => {
    const result = measure(pairs(1000, 780, 20, 10))
    expect(result.ratio).toBeCloseTo(790 / 800, 12)
    // Residuals s − r t: 1 − r for both right, −r for lost, 1 for won, 0 for neither.
    const r = 790 / 800
    const squares = 780 * (1 - r) ** 2 + 20 * r ** 2 + 10
    const deviation = Math.sqrt((squares * 1000) / 999) / 800
    expect(result.lower).toBeCloseTo(r - 1.6448536269514722 * deviation, 12)
    expect(result.discordance).toBeCloseTo(0.03, 12)
  })
  test('the bound covers the truth about 95 times in 100', () => {
    const random = new Random(11)
    let covered = 0
    const trials = 600
    for (let trial = 0; trial < trials; trial++) {
      const rows = Array.from({ length: 1200 }, () => {
        const t = random.uniform() < 0.8 ? 1 : 0
        return [t, random.uniform() < (t ? 0.9 : 0.2) ? 1 : 0] as const
      })
      // True ratio: (0.8 · 0.9 + 0.2 · 0.2) / 0.8 = 0.95
      if (measure(rows).lower <= 0.95) covered++
    }
    expect(covered / trials).toBeGreaterThan(0.92)
    expect(covered / trials).toBeLessThan(0.98)
  })
  test('units that always agree within a passage count as one', () => {
    const rows = pairs(240, 200, 20, 8).flatMap((pair) => Array.from({ length: 10 }, () => pair))
    expect(measure(rows, 10).lower).toBeCloseTo(measure(pairs(240, 200, 20, 8)).lower, 12)
    expect(measure(rows).lower).toBeGreaterThan(measure(rows, 10).lower)
  })
  test('is corrected for chance, and refuses nonsense', () => {
    const result = retention([1, 1, 1, 0], [1, 1, 0, 0], { required: 0.97, chance: 0.25 })
    expect(result.corrected).toBeCloseTo(0.25 / 0.5)
    expect(() => retention([0], [1], { required: 0.97 })).toThrow('the teacher got nothing right')
    expect(() => retention([1], [], { required: 0.97 })).toThrow(RangeError)
  })
})

test('stages run in order, resume after a fault, and run again when what came before changed', async () => {
  const where = join(folder, 'run')
  const ran: string[] = []
  let broken = true
  const stage = (name: string) => ({
    name,
    async work() {
      ran.push(name)
      if (name === 'b' && broken) throw new Error('power cut')
      return name.toUpperCase()
    },
  })
  const all = ['a', 'b', 'c'].map(stage)
  await expect(runStages(where, 'scope', all)).rejects.toThrow('power cut')
  broken = false
  const records = await runStages(where, 'scope', all)
  expect(ran).toEqual(['a', 'b', 'b', 'c'])
  expect(records.map(({ result }) => result)).toEqual(['A', 'B', 'C'])
  await runStages(where, 'scope', all)
  expect(ran.length).toBe(4)
  await runStages(where, 'another scope', all)
  expect(ran.slice(4)).toEqual(['a', 'b', 'c'])
  await expect(runStages(where, 'third', all, AbortSignal.abort())).rejects.toThrow(InterruptedError)
})

test('a student is anchored to what its layers stand for', () => {
  const plan = { removal: [2, 4, 1], cost: [] }
  expect(planAnchors(plan, 6, 4)).toEqual({
    kept: [0, 1, 3, 5],
    outputs: [0, 2, 4, 5].map((teacher, layer) => ({ layer, teacher: `${teacher}.output` })),
    query: '5.query',
  })
  // Few anchors are spread over the layers, the last one among them.
  expect(planAnchors(plan, 6, 4, 2).outputs).toEqual([
    { layer: 1, teacher: '2.output' },
    { layer: 3, teacher: '5.output' },
  ])
  expect(() => planAnchors({ removal: [2], cost: [] }, 6, 4)).toThrow('chose 1 layers to remove, 2 are needed')
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), (count) => {
      const { kept, outputs } = planAnchors({ removal: [3, 0, 5, 1, 4], cost: [] }, 6, count)
      expect(kept.length).toBe(count)
      expect(outputs.at(-1)).toEqual({ layer: count - 1, teacher: '5.output' })
    }),
  )
})

test('raw activations and the teacher at the gate are refused', async () => {
  expect(() => refuseRaw('anchor.x', 65, 128)).toThrow(RuleError)
  refuseRaw('anchor.x', 64, 128)
  const run = { folder, teacherName: 't', teacherFolder: folder } as unknown as NiwtRun
  await expect(gateStage(run)).rejects.toThrow('Rule "the gate runs without the teacher" is broken')
})

test('files are written whole or not at all', async () => {
  const path = join(folder, 'deep/er/file.json')
  await writeFileAtomic(path, '{"a":1}')
  expect(await readJson(path)).toEqual({ a: 1 })
  // A folder in the way of the rename: the old state stays, and no part is left.
  await expect(writeFileAtomic(join(folder, 'deep'), 'x')).rejects.toThrow()
  expect(await new FolderFiles(join(folder, 'deep')).list()).toEqual(['er/file.json'])
  expect(await readFile(path, 'utf8')).toBe('{"a":1}')
  await writeFile(path, '{"a":')
  await expect(readJson(path)).rejects.toThrow('is not valid JSON')
  await expect(readJson(join(folder, 'nowhere'))).rejects.toThrow(SyntaxError)
})

test('a full disk is a resource that ran out, and nothing is half-written', async () => {
  // /dev/full takes an open and refuses every write, as a full disk does.
  await symlink('/dev/full', join(folder, `full.${process.pid}.part`))
  const fault = await writeFileAtomic(join(folder, 'full'), 'x'.repeat(10)).catch((error: unknown) => error)
  expect(fault).toBeInstanceOf(ResourceError)
  expect((fault as Error).message).toContain('the disk is full. Free 10 bytes')
  expect(exitCodeOf(fault)).toBe(6)
  expect((await new FolderFiles(folder).list()).filter((name) => name.startsWith('full'))).toEqual([])
})

test('a path that climbs out of its folder is neither read nor written', async () => {
  const files = new FolderFiles(join(folder, 'deep'))
  for (const path of ['../escaped', 'er/../../escaped', '/etc/hostname']) {
    await expect(files.read(path)).rejects.toThrow('outside the folder')
    await expect(files.write(path, new Uint8Array(1))).rejects.toThrow('outside the folder')
  }
})

test('links are not followed', async () => {
  await symlink('/etc/hostname', join(folder, 'link'))
  await expect(new FolderFiles(folder).read('link')).rejects.toThrow('not a regular file')
})

test('faults have the exit codes that the command line promises', () => {
  expect(exitCodeOf(new UsageError('x'))).toBe(2)
  expect(exitCodeOf(new Error('x'))).toBe(1)
  expect(exitCodeOf(Object.assign(new Error('x'), { code: 'ENOSPC' }))).toBe(6)
})
