import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { LinearRouter } from '../../src/adapters/linear-router.ts'
import { type Files, MemoryFiles, sha256 } from '../../src/bundle/files.ts'
import { newKeyPair, readPrivateKey, readPublicKey } from '../../src/bundle/keys.ts'
import { type Manifest, writeManifest } from '../../src/bundle/manifest.ts'
import { signManifest } from '../../src/bundle/signature.ts'
import { verifyBundle } from '../../src/bundle/verify.ts'
import { writeZip, ZipFiles } from '../../src/bundle/zip.ts'
import { BundleError, exitCodeOf } from '../../src/core/errors.ts'
import { memorySource } from '../../src/formats/byte-source.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { FolderFiles } from '../../src/host/files.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { gpu } from '../gpu.ts'
import { adapterBytes, json, manifestOf, putManifest, text, tinyBundle } from './tiny-bundle.ts'

// Whatever is done to a bundle, it is refused, with the reason, and before any weight reaches the GPU. Where nothing
// else is said, the attacker also corrects hashes, sizes and id, so that only the check that is meant can find it.

const pair = await newKeyPair()
const [privateKey, publicKey] = [await readPrivateKey(pair.privatePem), await readPublicKey(pair.publicPem)]
const stranger = await newKeyPair()
const code = text('export const answer = 42\n')

/** A signed bundle with a little program in it. */
async function signedBundle(): Promise<MemoryFiles> {
  const files = await tinyBundle({ extra: { 'src/run.js': code }, restricted: ['code'] })
  await files.write('manifest.sig.json', await signManifest(manifestOf(files), privateKey))
  return files
}
const whole = await signedBundle()
const fresh = () => {
  const files = new MemoryFiles()
  for (const [path, bytes] of whole.contents) files.contents.set(path, bytes.slice())
  return files
}

type Tamper = (files: MemoryFiles) => void | Promise<void>
interface Case {
  readonly what: string
  readonly tamper: Tamper
  readonly reason: string
  /** Whether the reader has the public key; where not, the signature is taken away by the attacker. */
  readonly withKey?: boolean
}

async function refuse(files: Files, reason: string, key?: typeof publicKey): Promise<void> {
  const report = await verifyBundle(files, { key })
  expect(report.ok).toBe(false)
  const reasons = report.checks.filter(({ ok }) => !ok).map((check) => check.reason)
  expect(reasons.join('; ')).toContain(reason)
  const before = gpu.live
  const error = await NexusModel.load(files, { gpu, key }).then(
    () => undefined,
    (fault: unknown) => fault,
  )
  expect(error).toBeInstanceOf(BundleError)
  expect(exitCodeOf(error)).toBe(4)
  expect(gpu.live).toBe(before)
}

const flip =
  (path: string): Tamper =>
  (files) => {
    const bytes = files.contents.get(path)!
    bytes[bytes.length >> 1] ^= 1
  }
const remove =
  (path: string): Tamper =>
  (files) =>
    void files.contents.delete(path)
const add =
  (path: string, bytes = text('x')): Tamper =>
  (files) =>
    void files.contents.set(path, bytes)
/** Changes the manifest and corrects its id. */
const edit =
  (change: (manifest: Manifest) => void): Tamper =>
  async (files) => {
    const manifest = manifestOf(files)
    change(manifest)
    await putManifest(files, manifest)
  }
/** Replaces or adds a file and lists it in the manifest. */
const replace =
  (path: string, make: (old: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>): Tamper =>
  async (files) => {
    const bytes = make(files.contents.get(path) ?? new Uint8Array())
    files.contents.set(path, bytes)
    const manifest = manifestOf(files)
    manifest.files[path] = { sha256: await sha256(bytes), size: bytes.length }
    if (path.startsWith('backbone/backbone'))
      for (const c of Object.values(manifest.capabilities)) c.base_sha256 = manifest.files[path].sha256
    await putManifest(files, manifest)
  }
const replaceJson = (path: string, change: (value: Record<string, never>) => object) =>
  replace(path, (old) => json(change(JSON.parse(new TextDecoder().decode(old)))))
const replaceText = (path: string, change: (old: string) => string) =>
  replace(path, (old) => text(change(new TextDecoder().decode(old))))
const withTensor =
  (name: string, dtype: 'F32' | 'F16' = 'F16') =>
  (old: Uint8Array<ArrayBuffer>) => {
    const { tensors } = parseSafetensors(old)
    return writeSafetensors(new Map([...tensors, [name, cpuTensor(dtype, [2, 16], new Float32Array(32))]]))
  }
const swap: Tamper = (files) => {
  const [one, two] = ['adapters/add.safetensors', 'adapters/code.safetensors']
  const bytes = files.contents.get(one)!
  files.contents.set(one, files.contents.get(two)!)
  files.contents.set(two, bytes)
}
const both =
  (...steps: Tamper[]): Tamper =>
  async (files) => {
    for (const step of steps) await step(files)
  }
const a = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'

describe('a tampered bundle is refused with its reason', () => {
  const cases: Case[] = [
    // Contents that no longer fit the manifest.
    ...[...whole.contents.keys()]
      .filter((path) => !path.startsWith('manifest'))
      .map((path) => ({ what: `a flipped bit in ${path}`, tamper: flip(path), reason: `${path} was altered` })),
    { what: 'a flipped bit in the manifest', tamper: flip('manifest.json'), reason: '' },
    { what: 'swapped adapters', tamper: swap, reason: 'adapters/add.safetensors was altered' },
    {
      what: 'a truncated adapter',
      tamper: (f) => add('adapters/add.safetensors', f.contents.get('adapters/add.safetensors')!.slice(0, 100))(f),
      reason: 'has 100 bytes, the manifest says',
    },
    // Files that are not there, or should not be.
    { what: 'no backbone', tamper: remove('backbone/backbone.safetensors'), reason: 'backbone.safetensors is missing' },
    { what: 'no report', tamper: remove('verify_report.json'), reason: 'verify_report.json is missing' },
    { what: 'no manifest', tamper: remove('manifest.json'), reason: 'there is no such file' },
    { what: 'an added file', tamper: add('extra.bin'), reason: '"extra.bin" does not belong' },
    { what: 'an added file of a kind that may be there', tamper: add('src/more.js'), reason: 'not in the manifest' },
    {
      what: 'an added adapter',
      tamper: add('adapters/spy.safetensors', adapterBytes(9)),
      reason: 'not in the manifest',
    },
    {
      what: 'an added adapter, listed',
      tamper: replace('adapters/spy.safetensors', () => adapterBytes(9)),
      reason: 'belongs to no capability',
    },
    {
      what: 'a renamed adapter',
      tamper: both(add('adapters/sum.safetensors', adapterBytes(0)), remove('adapters/add.safetensors')),
      reason: 'adapters/sum.safetensors is not in the manifest',
    },
    {
      what: 'Python in src, listed',
      tamper: replace('src/train.py', () => text('import torch')),
      reason: '"src/train.py" does not belong',
    },
    { what: 'a path that climbs out', tamper: add('../x.js'), reason: 'leads out of the bundle' },
    { what: 'an absolute path', tamper: add('/etc/x'), reason: 'leads out of the bundle' },
    { what: 'a drive', tamper: add('C:/x'), reason: 'leads out of the bundle' },
    { what: 'a backslash', tamper: add('src\\x.js'), reason: 'characters that no path' },
    { what: 'a control character', tamper: add('src/x\n.js'), reason: 'characters that no path' },
    { what: 'a twin in another case', tamper: add('readme.md'), reason: 'one name on some systems' },
    { what: 'a Unicode twin', tamper: add('LICEN\u017fE'), reason: 'one name on some systems' },
    { what: 'a decomposed name', tamper: add('src/e\u0301.js'), reason: 'not in Unicode' },
    // A manifest that lies.
    { what: 'a manifest that is not JSON', tamper: add('manifest.json', text('{')), reason: 'not valid JSON' },
    {
      what: 'a manifest with a key twice',
      tamper: (f) =>
        add(
          'manifest.json',
          text(new TextDecoder().decode(f.contents.get('manifest.json')).replace('{', '{"seed":1,')),
        )(f),
      reason: 'not in canonical form',
    },
    {
      what: 'an edited file list',
      tamper: edit((m) => Object.assign(m.files.LICENSE, { sha256: '0'.repeat(64) })),
      reason: 'LICENSE was altered',
    },
    {
      what: 'an edited retention, its id left',
      tamper: (f) => {
        const manifest = manifestOf(f)
        manifest.capabilities.add.restricted = true
        f.contents.set('manifest.json', writeManifest(manifest))
      },
      reason: 'its id is not that of what it says',
    },
    {
      what: 'an older schema',
      tamper: edit((m) => Object.assign(m, { schema_version: 1 })),
      reason: 'pack the bundle again',
    },
    { what: 'an unknown field', tamper: edit((m) => Object.assign(m, { note: 'x' })), reason: 'manifest.json' },
    {
      what: 'an invariant that is off',
      tamper: edit((m) => Object.assign(m.invariants, { teacher_free: false })),
      reason: 'teacher_free',
    },
    {
      what: 'another base',
      tamper: edit((m) => Object.assign(m.capabilities.add, { base_sha256: '1'.repeat(64) })),
      reason: 'trained on another backbone',
    },
    {
      what: 'a capability with another’s adapter',
      tamper: edit((m) => Object.assign(m.capabilities.add, { adapter: 'adapters/code.safetensors' })),
      reason: 'names adapters/code.safetensors',
    },
    {
      what: 'a capability without adapter',
      tamper: edit((m) => void delete m.files['adapters/add.safetensors']),
      reason: 'is not in the manifest',
    },
    {
      what: 'weights larger than the limit',
      tamper: edit((m) => Object.assign(m.size_limits, { weights: 1000 })),
      reason: 'more than the 1000 that the manifest allows',
    },
    {
      what: 'files larger than the limit together',
      tamper: edit((m) => Object.assign(m.size_limits, { total: 2000 })),
      reason: 'more than the 2000 that the manifest allows',
    },
    {
      what: 'a better score than was measured',
      tamper: edit((m) => Object.assign(m.capabilities.add, { retention: 1.1 })),
      reason: 'say different things of add',
    },
    {
      what: 'an edited report',
      tamper: replaceText('verify_report.json', (old) => old.replace('"ratio":1', '"ratio":2')),
      reason: 'say different things of add',
    },
    {
      what: 'no report in the report',
      tamper: replace('verify_report.json', () => json({})),
      reason: 'no report of a gate',
    },
    {
      what: 'another storage than the weights have',
      tamper: edit((m) => Object.assign(m.model_metadata, { storage: 'nf4' })),
      reason: 'config/runtime.yaml says f16, the manifest nf4',
    },
    // Weights that hold more than they should.
    {
      what: 'a teacher’s tensor in an adapter',
      tamper: replace('adapters/add.safetensors', withTensor('model.layers.3.mlp.up_proj.weight')),
      reason: 'no part of an adapter',
    },
    {
      what: 'a layer too many in an adapter',
      tamper: replace('adapters/add.safetensors', withTensor(a.replace('layers.0', 'layers.3'))),
      reason: 'no part of an adapter',
    },
    {
      what: 'half a pair in an adapter',
      tamper: replace('adapters/add.safetensors', withTensor(a.replace('q_proj', 'k_proj'))),
      reason: 'no part of an adapter',
    },
    {
      what: 'a teacher’s tensor in the backbone',
      tamper: replace('backbone/backbone.safetensors', withTensor('model.layers.3.mlp.up_proj.weight')),
      reason: 'does not ask for',
    },
    {
      what: 'scales of nothing in the backbone',
      tamper: replace('backbone/backbone.safetensors', withTensor('model.norm.weight.absmax', 'F32')),
      reason: 'held in F32, the bundle says f16',
    },
    {
      what: 'something beside the router',
      tamper: replace('router/router.safetensors', withTensor('other')),
      reason: 'nothing else',
    },
    {
      what: 'a trained router where prototypes are named',
      tamper: replace('router/router.safetensors', () => {
        const weights = [new Float64Array(16), new Float64Array(16)]
        return writeSafetensors(new LinearRouter(['add', 'code'], weights, new Float64Array(2)).toTensors())
      }),
      reason: 'the router must hold prototypes for each capability and nothing else',
    },
    {
      what: 'traces of training in the metadata',
      tamper: replace('adapters/add.safetensors', (old) =>
        writeSafetensors(parseSafetensors(old).tensors, { optimizer: 'adamw' }),
      ),
      reason: 'speaks of "optimizer: adamw"',
    },
    {
      what: 'anything in the metadata',
      tamper: replace('router/router.safetensors', (old) =>
        writeSafetensors(parseSafetensors(old).tensors, { format: 'UEsDBA==' }),
      ),
      reason: 'the metadata of router/router.safetensors',
    },
    {
      what: 'a weight file that is none',
      tamper: replace('adapters/code.safetensors', () => text('PK\u0003\u0004, not safetensors at all')),
      reason: 'Cannot read safetensors',
    },
    // Code and configuration that speak of a teacher or of training.
    {
      what: 'a teacher in config.json',
      tamper: replaceJson('backbone/config.json', (old) => ({ ...old, teacher: 'x' })),
      reason: 'backbone/config.json speaks of teacher',
    },
    {
      what: 'training in runtime.yaml',
      tamper: replaceText('config/runtime.yaml', (old) => `${old}# optimizer: adamw\n`),
      reason: 'config/runtime.yaml speaks of optimizer',
    },
    {
      what: 'an unknown field of runtime.yaml',
      tamper: replaceText('config/runtime.yaml', (old) => `${old}url: example\n`),
      reason: 'config/runtime.yaml: top level',
    },
    {
      what: 'a capability that runtime.yaml does not route to',
      tamper: replaceText('config/runtime.yaml', (old) => old.replace('- code', '- other')),
      reason: 'routes to other capabilities',
    },
    {
      what: 'training code in src',
      tamper: replace('src/run.js', () => text('export function step(loss) { return adamw(loss) }')),
      reason: 'src/run.js speaks of adamw',
    },
    {
      what: 'a path that names training',
      tamper: replace('src/distil.js', () => code),
      reason: 'the path src/distil.js speaks of distil',
    },
    {
      what: 'something beside the tokenizer',
      tamper: replaceJson('tokenizer/tokenizer.json', (old) => ({ ...old, payload: 'x' })),
      reason: 'no part of a tokenizer',
    },
    {
      what: 'a config that contradicts the weights',
      tamper: replaceJson('backbone/config.json', (old) => ({ ...old, num_hidden_layers: 2 })),
      reason: 'which the weights lack',
    },
    // Signatures: everything else is corrected, the signature cannot be.
    { what: 'no signature', tamper: remove('manifest.sig.json'), reason: 'is not signed', withKey: true },
    {
      what: 'a stranger’s signature',
      tamper: async (f) =>
        f.write('manifest.sig.json', await signManifest(manifestOf(f), await readPrivateKey(stranger.privatePem))),
      reason: 'it was made with another key',
      withKey: true,
    },
    {
      what: 'a stranger’s signature under the right name',
      tamper: async (f) => {
        const key = { ...(await readPrivateKey(stranger.privatePem)), hint: publicKey.hint }
        await f.write('manifest.sig.json', await signManifest(manifestOf(f), key))
      },
      reason: 'the signature is not the key’s',
      withKey: true,
    },
    {
      what: 'an edited file, all hashes corrected',
      tamper: replaceText('README.md', (old) => `${old}, improved`),
      reason: 'it was made for another manifest',
      withKey: true,
    },
    {
      what: 'a restricted adapter set free',
      tamper: edit((m) => Object.assign(m.capabilities.code, { restricted: false })),
      reason: 'it was made for another manifest',
      withKey: true,
    },
    {
      what: 'another time of building',
      tamper: edit((m) => Object.assign(m, { build_timestamp: '2020-01-01T00:00:00Z' })),
      reason: 'it was made for another manifest',
      withKey: true,
    },
    {
      what: 'a signature that is not JSON',
      tamper: add('manifest.sig.json', text('x')),
      reason: 'manifest.sig.json: it is not valid JSON',
      withKey: true,
    },
    {
      what: 'a signature without signatures',
      tamper: (f) => {
        const envelope = JSON.parse(new TextDecoder().decode(f.contents.get('manifest.sig.json')))
        envelope.dsseEnvelope.signatures = []
        f.contents.set('manifest.sig.json', json(envelope))
      },
      reason: 'manifest.sig.json: dsseEnvelope.signatures',
      withKey: true,
    },
  ]
  test('there are at least forty', () => expect(cases.length).toBeGreaterThanOrEqual(40))
  test.each(cases)('$what', async ({ tamper, reason, withKey }) => {
    const files = fresh()
    if (!withKey) files.contents.delete('manifest.sig.json')
    await tamper(files)
    await refuse(files, reason, withKey ? publicKey : undefined)
  })
  test('untouched it is accepted, with its key and without', async () => {
    expect(await verifyBundle(fresh(), { key: publicKey })).toMatchObject({ ok: true, signature: 'valid' })
    expect(await verifyBundle(fresh())).toMatchObject({ ok: true, signature: 'unchecked' })
  })
  test('a manifest too large to read is not read', async () => {
    const files = fresh()
    files.size = async (path) => (path === 'manifest.json' ? 2 ** 40 : files.contents.get(path)!.length)
    files.read = async () => {
      throw new Error('it was read')
    }
    await refuse(files, 'manifest.json has 1099511627776 bytes')
  })
  test('a stale signature is refused even where nobody has the key', async () => {
    const files = fresh()
    await edit((m) => Object.assign(m, { seed: 7 }))(files)
    await refuse(files, 'it was made for another manifest')
  })
})

describe('a folder', () => {
  const cases: [string, (root: string) => Promise<void>, string][] = [
    [
      'a file that is a link',
      async (root) => {
        await rename(join(root, 'LICENSE'), join(root, '../elsewhere'))
        await symlink('../elsewhere', join(root, 'LICENSE'))
      },
      'LICENSE: it is not a regular file',
    ],
    ['a link to a folder outside', (root) => symlink('/', join(root, 'adapters/all')), 'does not belong'],
    ['a link that leads nowhere', (root) => symlink('nowhere', join(root, 'src/x.js')), 'not in the manifest'],
    [
      'a manifest that is a link',
      async (root) => {
        await rename(join(root, 'manifest.json'), join(root, '../manifest'))
        await symlink('../manifest', join(root, 'manifest.json'))
      },
      'manifest.json: it is not a regular file',
    ],
    ['a hidden file', (root) => writeFile(join(root, '.teacher'), 'x'), '".teacher" does not belong'],
  ]
  test.each(cases)('%s is refused', async (_, tamper, reason) => {
    const scratch = await mkdtemp(join(tmpdir(), 'nexus-bundle-'))
    try {
      const root = join(scratch, 'bundle')
      for (const [path, bytes] of whole.contents) {
        await mkdir(dirname(join(root, path)), { recursive: true })
        await writeFile(join(root, path), bytes)
      }
      const files = new FolderFiles(root)
      expect((await verifyBundle(files, { key: publicKey })).ok).toBe(true)
      await tamper(root)
      await refuse(files, reason)
    } finally {
      await rm(scratch, { recursive: true })
    }
  })
})

test('an archive of a tampered bundle is refused like its folder', async () => {
  const files = fresh()
  flip('adapters/add.safetensors')(files)
  const zip = await ZipFiles.open(memorySource(await writeZip(files)))
  await refuse(zip, 'adapters/add.safetensors was altered')
})
