import { LinearRouter, type RoutedState } from '../../src/adapters/linear-router.ts'
import { pool } from '../../src/adapters/router.ts'
import { MemoryFiles, sha256 } from '../../src/bundle/files.ts'
import { type BundleStorage, bundleIdOf, type Manifest, writeManifest } from '../../src/bundle/manifest.ts'
import { packBundle } from '../../src/bundle/pack.ts'
import { writeRuntimeConfig } from '../../src/bundle/runtime-config.ts'
import { packBackbone, unpackBackbone } from '../../src/bundle/storage.ts'
import { Random } from '../../src/core/random.ts'
import { type DecoderConfig, parameterCount, toHuggingFaceConfig } from '../../src/formats/model-config.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { asciiAlphabet, characterTokenizer, loadTokenizer } from '../../src/formats/tokenizer.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { randomTensors } from '../../src/models/random-tensors.ts'
import type { Gpu } from '../../src/runtime/gpu.ts'

export const config: DecoderConfig = {
  ...{ vocabularySize: 96, width: 16, layers: 1, heads: 2, kvHeads: 1, headSize: 8, ffnWidth: 24 },
  ...{ normEps: 1e-5, ropeTheta: 1e4, contextLength: 32, tiedHead: true, eosId: 0 },
}
export const text = (value: string) => new TextEncoder().encode(value)
export const json = (value: unknown) => text(JSON.stringify(value))

export function adapterBytes(seed: number): Uint8Array<ArrayBuffer> {
  const random = new Random(seed)
  const name = 'base_model.model.model.layers.0.self_attn.q_proj'
  return writeSafetensors(
    new Map([
      [`${name}.lora_A.weight`, cpuTensor('F16', [4, 16], random.normals(64))],
      [`${name}.lora_B.weight`, cpuTensor('F16', [16, 4], random.normals(64))],
    ]),
  )
}

const result = { student: 1, ratio: 1, lower: 0.99, n: 1200, verdict: 'pass' as const }

/** A whole bundle of a decoder with one layer, in memory: adapters `add` and `code`. */
export async function tinyBundle({
  names = ['add', 'code'],
  restricted = [] as readonly string[],
  storage = 'f16' as BundleStorage,
  deviation = 0.3,
  router = undefined as LinearRouter | undefined,
  extra = {} as Readonly<Record<string, Uint8Array<ArrayBuffer>>>,
} = {}): Promise<MemoryFiles> {
  const backbone = writeSafetensors(packBackbone(randomTensors(config, new Random(1), deviation), storage), {
    format: 'pt',
  })
  // One row a name, the same whichever others there are.
  const seeds: Record<string, number> = { add: 0, code: 1, prose: 2 }
  const rows = names.flatMap((name) => [...new Random(10 + seeds[name]).normals(16)])
  const parts = new Map<string, Uint8Array<ArrayBuffer>>([
    ['backbone/backbone.safetensors', backbone],
    ['backbone/config.json', json(toHuggingFaceConfig(config, 'float16'))],
    ['tokenizer/tokenizer.json', json(characterTokenizer(asciiAlphabet))],
    [
      'config/runtime.yaml',
      writeRuntimeConfig({
        backbone: { storage },
        router: router
          ? { kind: 'linear', capabilities: [...router.capabilities] }
          : { kind: 'prototypes', capabilities: [...names] },
      }),
    ],
    [
      'router/router.safetensors',
      writeSafetensors(router?.toTensors() ?? new Map([['prototypes', cpuTensor('F32', [names.length, 16], rows)]])),
    ],
    ['verify_report.json', json({ verdict: 'pass', capabilities: Object.fromEntries(names.map((n) => [n, result])) })],
    ['README.md', text('# A bundle\n')],
    ['LICENSE', text('MIT\n')],
    ...names.map((name) => [`adapters/${name}.safetensors`, adapterBytes(seeds[name])] as const),
    ...Object.entries(extra),
  ])
  const base_sha256 = await sha256(backbone)
  const files = new MemoryFiles()
  await packBundle(files, parts, {
    build_timestamp: '2026-01-01T00:00:00.000Z',
    tool_version: '0.1.0',
    seed: 42,
    model_metadata: {
      architecture: 'llama',
      storage,
      backbone_parameters: parameterCount(config),
      backbone_ratio: 0.5,
    },
    capabilities: Object.fromEntries(
      names.map((name) => [
        name,
        {
          adapter: `adapters/${name}.safetensors`,
          adapter_version: '1.0.0',
          base_sha256,
          parameters: 128,
          restricted: restricted.includes(name),
          example: 'abc',
          metric: 'exact_match',
          score: result.student,
          retention: result.ratio,
          lower_bound: result.lower,
          n: result.n,
          verdict: result.verdict,
          measured_storage: storage,
        },
      ]),
    ),
  })
  return files
}

/** A router of the tiny bundle's backbone, trained on prompts of each capability. */
export async function trainedRouter(
  gpu: Gpu,
  prompts: Readonly<Record<string, readonly string[]>>,
): Promise<LinearRouter> {
  using backbone = Decoder.load(
    gpu,
    config,
    unpackBackbone(packBackbone(randomTensors(config, new Random(1), 0.3), 'f16')),
  )
  const tokenizer = loadTokenizer(characterTokenizer(asciiAlphabet))
  const examples: RoutedState[] = []
  for (const [capability, all] of Object.entries(prompts))
    for (const prompt of all)
      examples.push({ state: await pool(backbone, [config.eosId, ...tokenizer.encode(prompt)]), capability })
  return LinearRouter.fit(Object.keys(prompts), examples)
}

/** The manifest as it lies in the files. */
export function manifestOf(files: MemoryFiles): Manifest {
  return JSON.parse(new TextDecoder().decode(files.contents.get('manifest.json')!)) as Manifest
}

/** Puts a manifest in, with the id that fits what it says, as a careful attacker would. */
export async function putManifest(files: MemoryFiles, manifest: Manifest): Promise<void> {
  const bundle_id = await bundleIdOf(manifest)
  files.contents.set('manifest.json', writeManifest({ ...manifest, bundle_id }))
}
