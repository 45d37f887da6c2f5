import { cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { InterruptedError } from '../../src/core/errors.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { FolderFiles } from '../../src/host/files.ts'
import { profileDefaults } from '../../src/profile/profile.ts'
import { type ProfileRequest, runMerge, runProfile } from '../../src/profile/run.ts'
import { profileJsonSchema } from '../../src/profile/schema.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { writeSums, writeTeacher } from './tiny-data.ts'

let folder: string
let data: string
let teacher: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-test-'))
  data = await writeSums(join(folder, 'sums.jsonl'))
  teacher = await writeTeacher(join(folder, 'small'))
})
afterAll(() => rm(folder, { recursive: true }))

function request(out: string, more: Partial<ProfileRequest> = {}): ProfileRequest {
  return {
    ...{ gpu, teacher, capabilities: [{ name: 'sums', data }], samples: 24, length: 16, seed: 42 },
    ...{ storage: 'nf4', shard: { index: 0, count: 1 }, out: join(folder, out), onProgress() {} },
    settings: { ...profileDefaults, pooled: 128, share: 10, headSamples: 8, heldOutTokens: 64 },
    ...more,
  }
}

const capabilityFolder = (out: string) => join(folder, out, 'niwt_stage2_output/profiles/small/sums')

async function bytesOf(path: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  for (const name of await new FolderFiles(path).list())
    if (!name.endsWith('measures.json')) files.set(name, await readFile(join(path, name)))
  return files
}

test('a run that is killed again and again ends with the bytes of one that was not', async () => {
  const { profiles } = await withoutLeaks(() => runProfile(request('whole')))
  // Layer 1 of the small teacher does nothing: both the cheap score and ablation say so.
  const [{ layerScores, ablation, scoreCorrelation, keyLayers }] = profiles
  expect(layerScores.indexOf(Math.min(...layerScores))).toBe(1)
  expect(Math.abs(ablation[1]!)).toBeLessThan(1e-6)
  expect(ablation[0]! > 1e-3 && ablation[2]! > 1e-3).toBe(true)
  expect(keyLayers).not.toContain(1)
  expect(scoreCorrelation).toBeGreaterThanOrEqual(0.5)
  const settings = { ...request('cut').settings, saveEvery: 1 }
  const tasks = new Set<string>()
  for (let stops = 0; ; stops++) {
    // Stopped at every report of progress: within each phase and between them.
    const controller = new AbortController()
    let reports = 0
    const onProgress: ProfileRequest['onProgress'] = ({ task }) => {
      if (task === 'load') return
      tasks.add(task)
      if (++reports === 2) controller.abort()
    }
    try {
      await runProfile(request('cut', { settings, onProgress, signal: controller.signal }))
      expect(stops).toBeGreaterThan(3)
      break
    } catch (error) {
      expect(error).toBeInstanceOf(InterruptedError)
    }
  }
  expect([...tasks]).toEqual(['profile sums', 'heads of sums', 'ablation of sums', 'ranks of sums'])
  const [whole, cut] = [await bytesOf(join(folder, 'whole')), await bytesOf(join(folder, 'cut'))]
  expect([...cut.keys()]).toEqual([...whole.keys()])
  for (const [name, bytes] of whole) expect(bytes.equals(cut.get(name)!), name).toBe(true)
})

test('a kill while a file is written leaves the state before it, and the run goes on from there', async () => {
  // What a process that died between two saves leaves: an older state and a half-written file beside it.
  const controller = new AbortController()
  const onProgress: ProfileRequest['onProgress'] = ({ task }) => {
    if (task === 'profile sums') controller.abort()
  }
  await expect(runProfile(request('killed', { onProgress, signal: controller.signal }))).rejects.toThrow('batch 1 of 3')
  const part = join(capabilityFolder('killed'), 'partial')
  await cp(join(part, 'pass-0.safetensors'), join(part, 'pass-0.safetensors.999999.part'))
  await runProfile(request('killed'))
  const [whole, killed] = [await bytesOf(capabilityFolder('whole')), await bytesOf(capabilityFolder('killed'))]
  expect([...killed.keys()]).toEqual([...whole.keys()])
  for (const [name, bytes] of whole) expect(bytes.equals(killed.get(name)!), name).toBe(true)
})

test('several passes over groups of layers find what one pass does', async () => {
  const settings = { ...request('passes').settings, memory: 120_000 }
  const { profiles } = await runProfile(request('passes', { settings }))
  const one = JSON.parse(await readFile(join(capabilityFolder('whole'), 'profile.json'), 'utf8'))
  expect(profiles[0]).toEqual(one)
})

test('shards merge to the profile of all samples, in either order', async () => {
  for (const index of [0, 1])
    await runProfile(
      request(`shard-${index}`, {
        shard: { index, count: 2 },
        settings: { ...request('').settings, keepState: true, headSamples: 24 },
      }),
    )
  await runProfile(request('all', { settings: { ...request('').settings, headSamples: 24 } }))
  const all = parseSafetensors(await readFile(join(capabilityFolder('all'), 'pca.safetensors'))).tensors
  for (const order of [
    [0, 1],
    [1, 0],
  ]) {
    const out = join(folder, `merged-${order.join('')}`)
    const parts = order.map((index) => capabilityFolder(`shard-${index}`))
    const { profiles } = await runMerge({ gpu, teacher, parts, out, onProgress() {} })
    const [merged] = profiles
    const expected = JSON.parse(await readFile(join(capabilityFolder('all'), 'profile.json'), 'utf8'))
    expect([merged.samples, merged.data.tokens]).toEqual([expected.samples, expected.data.tokens])
    for (const [layer, score] of merged.layerScores.entries()) expect(score).toBeCloseTo(expected.layerScores[layer], 5)
    for (const [layer, heads] of merged.headImportance.entries())
      for (const [h, value] of heads.entries()) expect(value).toBeCloseTo(expected.headImportance[layer][h], 4)
    const path = join(out, 'niwt_stage2_output/profiles/small/sums/pca.safetensors')
    const { tensors } = parseSafetensors(await readFile(path))
    for (const [name, tensor] of all) {
      if (!name.endsWith('eigenvalues') && !name.endsWith('mean')) continue
      const [want, got] = [toFloat32(tensor), toFloat32(tensors.get(name)!)]
      const scale = want.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6)
      for (const [i, value] of want.entries()) expect(Math.abs(got[i] - value), name).toBeLessThan(2e-4 * scale)
    }
  }
  const bare = capabilityFolder('whole')
  await expect(runMerge({ gpu, teacher, parts: [bare], out: join(folder, 'x'), onProgress() {} })).rejects.toThrow(
    'it has no state. Profile it with --shard or --keep-state',
  )
})

test('nothing on disk and nothing read back grows with the samples', async () => {
  const reads: number[] = []
  const sizes: Map<string, number>[] = []
  for (const samples of [24, 72]) {
    const settings = { ...request('').settings, headSamples: 8 }
    const before = gpu.bytesRead
    const largest = new Map<string, number>()
    const onProgress = async () => {
      // Every file that exists at any time, partial ones too.
      for (const name of await readdir(join(capabilityFolder(`n${samples}`), 'partial')).catch(() => [])) {
        const size = await stat(join(capabilityFolder(`n${samples}`), 'partial', name)).then(
          (found) => found.size,
          () => 0,
        )
        if (name.endsWith('.safetensors')) largest.set(name, Math.max(largest.get(name) ?? 0, size))
      }
    }
    await runProfile(request(`n${samples}`, { samples, settings, onProgress: () => void onProgress() }))
    reads.push(gpu.bytesRead - before)
    const pca = parseSafetensors(await readFile(join(capabilityFolder(`n${samples}`), 'pca.safetensors'))).tensors
    sizes.push(new Map([...pca].map(([name, { shape }]) => [name, shape.reduce((a, b) => a * b, 1)])))
    for (const [name, size] of largest) sizes.at(-1)!.set(name, Math.round(size / 1e4))
  }
  // Fifty predictions are kept at most, of which 24 samples have 24: whole batches of eight rows of ids are read.
  expect(reads[1] - reads[0]).toBeLessThan((56 - 24) * 16 * 4 + 1)
  for (const [name, size] of sizes[0]) {
    // States are as large as ever; a basis has up to 64 directions of at most 96 numbers, as many as there are.
    if (name.startsWith('pass-')) expect(sizes[1].get(name), name).toBe(size)
    else expect(Math.max(size, sizes[1].get(name)!), name).toBeLessThanOrEqual(64 * 96)
  }
})

test('a request that changed is refused, and --fresh starts over', async () => {
  await expect(runProfile(request('whole', { samples: 12 }))).rejects.toThrow('samples was 24 and is now 12')
  const { profiles } = await runProfile(request('whole', { samples: 12, fresh: true }))
  expect(profiles[0].samples).toBe(12)
})

test('the published schema is that of the code', async () => {
  const published = await readFile(join(import.meta.dirname, '../../docs/profile.schema.json'), 'utf8')
  expect(JSON.parse(published), 'run: npx node scripts/profile-schema.ts').toEqual(profileJsonSchema())
})
