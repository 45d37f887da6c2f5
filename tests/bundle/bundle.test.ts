import { describe, expect, test } from 'vitest'
import { canonicalJson, sha256, type WritableFiles } from '../../src/bundle/files.ts'
import type { Manifest } from '../../src/bundle/manifest.ts'
import { packBundle } from '../../src/bundle/pack.ts'
import { assertVerified, verifyBundle } from '../../src/bundle/verify.ts'
import { BundleError } from '../../src/core/errors.ts'
import { Random } from '../../src/core/random.ts'
import { type DecoderConfig, parameterCount, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { asciiAlphabet, characterTokenizer } from '../../src/formats/tokenizer.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { randomTensors } from '../../src/models/decoder.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

class MemoryFiles implements WritableFiles {
  readonly contents = new Map<string, Uint8Array<ArrayBuffer>>()
  async list() {
    return [...this.contents.keys()].sort()
  }
  async read(path: string) {
    const bytes = this.contents.get(path)
    if (!bytes) throw new SyntaxError(`Cannot read ${path}: there is no such file`)
    return bytes
  }
  async write(path: string, bytes: Uint8Array) {
    this.contents.set(path, new Uint8Array(bytes))
  }
}

const config: DecoderConfig = {
  ...{ vocabularySize: 96, width: 16, layers: 1, heads: 2, kvHeads: 1, headSize: 8, ffnWidth: 24 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 32, tiedHead: true, eosId: 0 },
}
const text = (value: string) => new TextEncoder().encode(value)
const json = (value: unknown) => text(JSON.stringify(value))

function adapterBytes(seed: number): Uint8Array<ArrayBuffer> {
  const random = new Random(seed)
  const name = 'base_model.model.model.layers.0.self_attn.q_proj'
  return writeSafetensors(
    new Map([
      [`${name}.lora_A.weight`, cpuTensor('F16', [4, 16], random.normals(64))],
      [`${name}.lora_B.weight`, cpuTensor('F16', [16, 4], random.normals(64))],
    ]),
  )
}

async function pack(restricted = false): Promise<MemoryFiles> {
  const backbone = writeSafetensors(randomTensors(config, new Random(1), 0.3))
  const names = ['add', 'code']
  const parts = new Map<string, Uint8Array<ArrayBuffer>>([
    ['backbone/backbone.safetensors', backbone],
    ['backbone/config.json', json(toHuggingFaceConfig(config, 'float16'))],
    ['tokenizer/tokenizer.json', json(characterTokenizer(asciiAlphabet))],
    ['config/runtime.json', json({ router: { kind: 'prototypes', capabilities: names } })],
    [
      'router/router.safetensors',
      writeSafetensors(new Map([['prototypes', cpuTensor('F32', [2, 16], new Random(2).normals(32))]])),
    ],
    ['verify_report.json', json({ verdict: 'pass' })],
    ['README.md', text('# A bundle\n')],
    ['LICENSE', text('MIT\n')],
    ...names.map((name, i) => [`adapters/${name}.safetensors`, adapterBytes(i)] as const),
  ])
  const base_sha256 = await sha256(backbone)
  const files = new MemoryFiles()
  const measured = {
    metric: 'exact_match',
    score: 1,
    retention: 1,
    lower_bound: 0.99,
    n: 1200,
    verdict: 'pass' as const,
  }
  await packBundle(files, parts, {
    build_timestamp: '2026-01-01T00:00:00.000Z',
    tool_version: '0.1.0',
    seed: 42,
    model_metadata: { architecture: 'llama', backbone_parameters: parameterCount(config), backbone_ratio: 0.5 },
    capabilities: Object.fromEntries(
      names.map((name) => [
        name,
        {
          adapter: `adapters/${name}.safetensors`,
          base_sha256,
          parameters: 128,
          restricted: restricted && name === 'code',
          ...measured,
        },
      ]),
    ),
  })
  return files
}

test('a bundle verifies, loads and answers, and the same parts give the same bytes', () =>
  withoutLeaks(async () => {
    const files = await pack()
    expect((await verifyBundle(files)).checks.filter(({ ok }) => !ok)).toEqual([])
    expect(await pack()).toEqual(files)
    using model = await NexusModel.load(gpu, files)
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

test('a restricted adapter answers only when it is named and allowed', () =>
  withoutLeaks(async () => {
    using model = await NexusModel.load(gpu, await pack(true))
    const options = { prompt: 'abc', capability: 'code', maxTokens: 2 }
    await expect(model.generate(options)).rejects.toThrow('restricted')
    expect((await model.generate({ ...options, enableRestricted: true })).capability).toBe('code')
  }))

type Tamper = (files: MemoryFiles) => void | Promise<void>
const flip =
  (path: string): Tamper =>
  (files) => {
    const bytes = files.contents.get(path)!
    bytes[bytes.length - 1] ^= 1
  }
const editManifest =
  (edit: (manifest: Manifest & Record<string, unknown>) => void): Tamper =>
  (files) => {
    const manifest = JSON.parse(new TextDecoder().decode(files.contents.get('manifest.json')!))
    edit(manifest)
    files.contents.set('manifest.json', json(manifest))
  }
/** Replaces a file and writes its new hash into the manifest, as an attacker would. */
const replace =
  (path: string, make: (old: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>): Tamper =>
  async (files) => {
    const bytes = make(files.contents.get(path) ?? new Uint8Array())
    files.contents.set(path, bytes)
    const manifest = JSON.parse(new TextDecoder().decode(files.contents.get('manifest.json')!)) as Manifest
    manifest.files[path] = { sha256: await sha256(bytes), bytes: bytes.length }
    manifest.bundle_id = await sha256(text(canonicalJson(manifest.files)))
    if (path.startsWith('backbone/backbone'))
      for (const c of Object.values(manifest.capabilities)) c.base_sha256 = manifest.files[path].sha256
    files.contents.set('manifest.json', json(manifest))
  }
const extraTensor = (name: string) => (old: Uint8Array<ArrayBuffer>) => {
  const { tensors } = parseSafetensors(old)
  return writeSafetensors(new Map([...tensors, [name, cpuTensor('F32', [2, 16], new Float32Array(32))]]))
}

describe('tampering is refused with its reason', () => {
  const cases: [string, Tamper, string][] = [
    ...[
      'backbone/backbone.safetensors',
      'adapters/add.safetensors',
      'router/router.safetensors',
      'backbone/config.json',
      'tokenizer/tokenizer.json',
      'config/runtime.json',
      'verify_report.json',
      'README.md',
      'LICENSE',
    ].map((path): [string, Tamper, string] => [`a flipped byte in ${path}`, flip(path), `${path} was altered`]),
    [
      'a missing backbone',
      (f) => void f.contents.delete('backbone/backbone.safetensors'),
      'backbone/backbone.safetensors is missing',
    ],
    ['a missing manifest', (f) => void f.contents.delete('manifest.json'), 'there is no such file'],
    ['a manifest that is not JSON', (f) => void f.contents.set('manifest.json', text('{')), 'not valid JSON'],
    ['an added file', (f) => void f.contents.set('extra.bin', text('x')), '"extra.bin" does not belong'],
    [
      'an added adapter',
      (f) => void f.contents.set('adapters/spy.safetensors', adapterBytes(9)),
      'not in the manifest',
    ],
    ['a path that climbs out', (f) => void f.contents.set('../x', text('x')), 'does not belong'],
    [
      'an adapter of two cases',
      (f) => void f.contents.set('adapters/Add.safetensors', adapterBytes(0)),
      'does not belong',
    ],
    [
      'a truncated adapter',
      (f) => void f.contents.set('adapters/add.safetensors', f.contents.get('adapters/add.safetensors')!.slice(0, 100)),
      'the manifest says',
    ],
    [
      'swapped adapters',
      (f) => {
        const add = f.contents.get('adapters/add.safetensors')!
        f.contents.set('adapters/add.safetensors', f.contents.get('adapters/code.safetensors')!)
        f.contents.set('adapters/code.safetensors', add)
      },
      'was altered',
    ],
    [
      'an edited file list',
      editManifest((m) => Object.assign(m.files.LICENSE, { sha256: '0'.repeat(64) })),
      'was altered',
    ],
    [
      'an edited id',
      editManifest((m) => Object.assign(m, { bundle_id: '0'.repeat(64) })),
      'its id is not that of its files',
    ],
    ['an unknown field', editManifest((m) => Object.assign(m, { note: 'x' })), 'manifest.json'],
    [
      'an invariant that is off',
      editManifest((m) => Object.assign(m.invariants, { teacher_free: false })),
      'teacher_free',
    ],
    [
      'another base',
      editManifest((m) => Object.assign(m.capabilities.add, { base_sha256: '1'.repeat(64) })),
      'trained on another backbone',
    ],
    [
      'a renamed adapter',
      editManifest((m) => Object.assign(m.capabilities.add, { adapter: 'adapters/code.safetensors' })),
      'names adapters/code.safetensors',
    ],
    [
      'a capability without adapter',
      editManifest((m) => void delete (m.files as Record<string, unknown>)['adapters/add.safetensors']),
      'is not in the manifest',
    ],
    [
      'a teacher’s tensor in an adapter',
      replace('adapters/add.safetensors', extraTensor('model.layers.3.mlp.up_proj.weight')),
      'no part of an adapter',
    ],
    [
      'a teacher’s tensor in the backbone',
      replace('backbone/backbone.safetensors', extraTensor('model.layers.3.mlp.up_proj.weight')),
      'does not ask for',
    ],
    ['something beside the router', replace('router/router.safetensors', extraTensor('other')), 'nothing else'],
    [
      'traces of training in the metadata',
      replace('adapters/add.safetensors', (old) =>
        writeSafetensors(parseSafetensors(old).tensors, { optimizer: 'adamw' }),
      ),
      'speaks of',
    ],
    [
      'traces of a teacher in the config',
      replace('backbone/config.json', (old) => json({ ...JSON.parse(new TextDecoder().decode(old)), teacher: 'x' })),
      'speaks of teacher',
    ],
    [
      'a config that contradicts the weights',
      replace('backbone/config.json', (old) =>
        json({ ...JSON.parse(new TextDecoder().decode(old)), num_hidden_layers: 2 }),
      ),
      'which the weights lack',
    ],
  ]
  test.each(cases)('%s', async (_, tamper, reason) => {
    const files = await pack()
    await tamper(files)
    const report = await verifyBundle(files)
    expect(report.ok).toBe(false)
    expect(
      report.checks
        .filter(({ ok }) => !ok)
        .map((check) => check.reason)
        .join('; '),
    ).toContain(reason)
    const before = gpu.live
    await expect(NexusModel.load(gpu, files)).rejects.toThrow(BundleError)
    expect(gpu.live).toBe(before)
  })
})

test('a file that a bundle may not hold is not packed', async () => {
  const facts = {} as Parameters<typeof packBundle>[2]
  await expect(packBundle(new MemoryFiles(), new Map([['src/train.js', text('x')]]), facts)).rejects.toThrow(
    'a bundle has no such file',
  )
  await expect(assertVerified(new MemoryFiles())).rejects.toThrow(BundleError)
})
