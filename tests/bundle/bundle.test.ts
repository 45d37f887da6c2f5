import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { MemoryFiles } from '../../src/bundle/files.ts'
import { isAllowed } from '../../src/bundle/layout.ts'
import { manifestJsonSchema, storages } from '../../src/bundle/manifest.ts'
import { packBundle } from '../../src/bundle/pack.ts'
import { repack } from '../../src/bundle/repack.ts'
import { unpackBackbone } from '../../src/bundle/storage.ts'
import { codeTerms, configTerms } from '../../src/bundle/teacher-free.ts'
import { assertVerified, openVerified, verifyBundle } from '../../src/bundle/verify.ts'
import { BundleError } from '../../src/core/errors.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { manifestOf, text, tinyBundle, trainedRouter } from './tiny-bundle.ts'

test('a bundle verifies, loads and answers, and the same parts give the same bytes', () =>
  withoutLeaks(async () => {
    const files = await tinyBundle()
    expect((await verifyBundle(files)).checks.filter(({ ok }) => !ok)).toEqual([])
    expect(await tinyBundle()).toEqual(files)
    using model = await NexusModel.load(files, { gpu })
    const options = { prompt: 'abc', capability: 'add', maxTokens: 5 }
    const answer = await model.generate(options)
    expect(await model.generate(options)).toMatchObject({ text: answer.text, capability: 'add', chosenBy: 'caller' })
    let streamed = ''
    for await (const piece of model.stream(options)) streamed += piece
    expect(streamed).toBe(answer.text)
    expect(model.capabilities).toContain((await model.generate({ prompt: 'abc', maxTokens: 1 })).capability)
    await expect(model.generate({ prompt: 'a', capability: 'sing' })).rejects.toThrow('the bundle has add, code')
    await expect(model.generate({ prompt: 'a'.repeat(30), capability: 'add' })).rejects.toThrow('context is 32')
  }))

test('the time of building changes the manifest and not the id', async () => {
  const files = await tinyBundle()
  const { schema_version: _, bundle_id, invariants: __, files: listed, ...facts } = manifestOf(files)
  const parts = new Map(Object.keys(listed).map((path) => [path, files.contents.get(path)!]))
  const later = new MemoryFiles()
  const built = await packBundle(later, parts, { ...facts, build_timestamp: '2027-01-01T00:00:00.000Z' })
  expect(built.bundle_id).toBe(bundle_id)
  expect(manifestOf(later)).not.toEqual(manifestOf(files))
})

test('a restricted adapter stays away from the GPU until it is asked for', () =>
  withoutLeaks(async () => {
    const files = await tinyBundle({ restricted: ['code'] })
    const options = { prompt: 'abc', capability: 'code', maxTokens: 2 }
    {
      using closed = await NexusModel.load(files, { gpu })
      expect(closed.capabilities).toEqual(['add'])
      await expect(closed.generate(options)).rejects.toThrow('restricted; load the bundle with enableRestricted')
    }
    using open = await NexusModel.load(files, { gpu, enableRestricted: true })
    expect((await open.generate(options)).capability).toBe('code')
    // The router never chooses it, whatever the prompt.
    for (const prompt of ['a', 'b c', '123', 'xyz'])
      expect((await open.generate({ prompt, maxTokens: 1 })).capability).toBe('add')
  }))

test('a trained router chooses, whatever the order of the manifest, and knows nothing of what is restricted', () =>
  withoutLeaks(async () => {
    const prompts = { prose: ['it was', 'a whale', 'the sea'], add: ['12+34', '70+18', '5+5'] }
    const router = await trainedRouter(gpu, prompts)
    const options = { names: ['add', 'code', 'prose'], restricted: ['code'], router }
    const files = await tinyBundle(options)
    expect((await assertVerified(files)).ok).toBe(true)
    expect(await tinyBundle(options)).toEqual(files)
    using model = await NexusModel.load(files, { gpu, enableRestricted: true })
    for (const [capability, all] of Object.entries(prompts))
      for (const prompt of all)
        expect(await model.generate({ prompt, maxTokens: 1 })).toMatchObject({ capability, chosenBy: 'router' })
    using quantised = await NexusModel.load(await repack(files, 'nf4'), { gpu })
    expect(['add', 'prose']).toContain((await quantised.generate({ prompt: '12+34', maxTokens: 1 })).capability)
    // Weights that could choose it are refused.
    const all = await trainedRouter(gpu, { ...prompts, code: ['#abc>', '#cba>'] })
    await expect(assertVerified(await tinyBundle({ ...options, router: all }))).rejects.toThrow(
      'routes to other capabilities than the manifest has',
    )
  }))

test('with restricted off the logits are those of a bundle without that adapter, bit for bit', () =>
  withoutLeaks(async () => {
    using closed = await NexusModel.load(await tinyBundle({ restricted: ['code'] }), { gpu })
    using without = await NexusModel.load(await tinyBundle({ names: ['add'] }), { gpu })
    using open = await NexusModel.load(await tinyBundle(), { gpu, enableRestricted: true })
    for (const prompt of ['abc', 'x', '+74+98=']) {
      const logits = await closed.logits({ prompt })
      expect(logits.some((value) => value !== 0)).toBe(true)
      expect(new Uint8Array(logits.buffer)).toEqual(new Uint8Array((await without.logits({ prompt })).buffer))
      // The comparison can fail: the other adapter gives other logits.
      expect(await open.logits({ prompt, capability: 'code' })).not.toEqual(logits)
    }
  }))

test.each(storages)('a backbone in %s verifies, loads and answers', (storage) =>
  withoutLeaks(async () => {
    const files = await tinyBundle({ storage })
    await assertVerified(files)
    using model = await NexusModel.load(files, { gpu })
    using exact = await NexusModel.load(await tinyBundle(), { gpu })
    const [logits, want] = [
      await model.logits({ prompt: 'abc', capability: 'add' }),
      await exact.logits({ prompt: 'abc', capability: 'add' }),
    ]
    const distance = Math.hypot(...logits.map((value, i) => value - want[i])) / Math.hypot(...want)
    expect(distance).toBeLessThan({ f16: 1e-9, int8: 0.05, nf4: 0.6 }[storage])
    if (storage !== 'f16') expect(distance).toBeGreaterThan(1e-4)
  }),
)

test('NF4 that a decoder quantises again has the same codes and scales', async () => {
  const files = await tinyBundle({ storage: 'nf4' })
  for (const [name, tensor] of unpackBackbone(
    parseSafetensors(await files.read('backbone/backbone.safetensors')).tensors,
  )) {
    if (!name.endsWith('_proj.weight')) continue
    const values = toFloat32(tensor)
    expect(dequantizeNf4(quantizeNf4(values, tensor.shape))).toEqual(values)
  }
})

test('packing again changes the storage, keeps the time, and says what was measured with what', async () => {
  const files = await tinyBundle()
  const packed = await repack(files, 'nf4')
  const report = await assertVerified(packed)
  expect(report.manifest).toMatchObject({
    model_metadata: { storage: 'nf4' },
    build_timestamp: '2026-01-01T00:00:00.000Z',
  })
  expect(report.notes).toContain('add was measured with the backbone in f16; the bundle holds it in nf4.')
  // The backbone and the tensors in f16 come back exactly when nothing is lost.
  expect((await repack(files, 'f16')).contents.get('manifest.json')).toEqual(files.contents.get('manifest.json'))
  expect(await repack(packed, 'nf4')).toEqual(packed)
})

test('a file that changes after it was verified is not used', async () => {
  const source = await tinyBundle()
  const { files } = await openVerified(source)
  source.contents.get('LICENSE')![0] ^= 1
  await expect(files.read('LICENSE')).rejects.toThrow('LICENSE was altered after it was verified')
})

test('a file that a bundle may not hold, too large a one and a missing one are not packed', async () => {
  const files = await tinyBundle()
  const { schema_version: _, bundle_id: __, invariants: ___, files: listed, ...facts } = manifestOf(files)
  const parts = new Map(Object.keys(listed).map((path) => [path, files.contents.get(path)!]))
  const pack = (changed: typeof parts, limits = facts.size_limits) =>
    packBundle(new MemoryFiles(), changed, { ...facts, size_limits: limits })
  await expect(pack(new Map([...parts, ['src/train.py', text('x')]]))).rejects.toThrow('a bundle has no such file')
  await expect(pack(parts, { ...facts.size_limits, weights: 100 })).rejects.toThrow('more than the 100')
  await expect(pack(new Map([...parts].slice(0, 3)))).rejects.toThrow('Cannot pack a bundle without')
  await expect(assertVerified(new MemoryFiles())).rejects.toThrow(BundleError)
})

test('the allow-list has room for a program and for nothing else', () => {
  for (const path of [
    'bin/nexus.mjs',
    'src/runtime/gpu.js',
    'src/rms-norm.wgsl',
    'src/x.js',
    'index.html',
    'adapters/a-b_1.safetensors',
  ])
    expect(isAllowed(path), path).toBe(true)
  for (const path of [
    ...[
      'bin/nexus',
      'bin/.hidden.js',
      'src/../x.js',
      'src//x.js',
      'src/a.ts',
      'src/Gpu.js',
      'lib/x.js',
      'index.html/x',
    ],
    ...[
      'adapters/A.safetensors',
      'adapters/a/b.safetensors',
      'adapters/.safetensors',
      'backbone/config.jsonx',
      'xLICENSE',
    ],
  ])
    expect(isAllowed(path), path).toBe(false)
})

test('a program that verifies bundles may lie in one: it holds the words only as what is looked for', async () => {
  const code = `const a = ${configTerms}; const b = ${codeTerms}; export const ok = (m) => m.invariants.teacher_free`
  await assertVerified(await tinyBundle({ extra: { 'src/verify.js': text(code) } }))
  const worse = await tinyBundle({ extra: { 'src/verify.js': text(`${code}; import('./teacher.js')`) } })
  await expect(assertVerified(worse)).rejects.toThrow('src/verify.js speaks of teacher')
})

test('the published JSON Schema is the schema', async () => {
  const published = await readFile(join(import.meta.dirname, '../../docs/manifest.schema.json'), 'utf8')
  expect(JSON.parse(published), 'run: npx node scripts/manifest-schema.ts').toEqual(manifestJsonSchema())
})
