import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256 } from '../bundle/files.ts'
import { packBundle } from '../bundle/pack.ts'
import { writeRuntimeConfig } from '../bundle/runtime-config.ts'
import { assertVerified } from '../bundle/verify.ts'
import type { RouterKind } from '../formats/router-kind.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { exists, FolderFiles, readBytes, readJson, removeFolder } from '../host/files.ts'
import type { GateReport } from './gate.ts'
import { type NiwtRun, paths } from './run.ts'
import { readArchitecture } from './synthesize.ts'

/** What stage 6 needs beside the student. */
export interface PackFacts {
  readonly toolVersion: string
  /** ISO 8601, see `buildTime`; the same timestamp gives the same bytes. */
  readonly timestamp: string
  readonly tokenizer: object
  /** Text of the licence of the packed weights. */
  readonly licence: string
  /** What the bundle carries to run by itself, by its path there; nothing unless told. */
  readonly program?: ReadonlyMap<string, Uint8Array<ArrayBuffer>>
  /** Capabilities that answer only a caller who asks for restricted ones; none unless told. */
  readonly restricted?: readonly string[]
}

/** Version of an adapter that a run has just made. */
const firstVersion = '1.0.0'

/**
 * Stage 6: the bundle, built in a clean folder from what a bundle may hold and nothing else, verified, then moved into
 * its place.
 */
export async function packStage(run: NiwtRun, facts: PackFacts): Promise<{ bytes: number; bundleId: string }> {
  const where = paths(run.folder, run.teacherName)
  const { architecture } = await readArchitecture(where.architecture)
  const report = (await readJson(where.report)) as GateReport
  const student = (name: string) => readBytes(join(where.student, name))
  const text = (value: string) => new TextEncoder().encode(value)
  const json = (value: unknown) => text(`${JSON.stringify(value, null, 2)}\n`)

  const backbone = await student('backbone.safetensors')
  const base = await sha256(backbone)
  const names = run.capabilities.map(({ name }) => name)
  const { storage = 'f16' } = run.settings.student
  const router = parseSafetensors(await student('router.safetensors'))
  // What an older run fitted has a row for each capability, restricted or not.
  const kind: RouterKind = router.tensors.has('weights') ? 'linear' : 'prototypes'
  const routed = kind === 'linear' ? names.filter((name) => !facts.restricted?.includes(name)) : names
  const parts = new Map<string, Uint8Array<ArrayBuffer>>([
    ['backbone/backbone.safetensors', backbone],
    ['backbone/config.json', json(architecture.backbone)],
    ['tokenizer/tokenizer.json', json(facts.tokenizer)],
    ['config/runtime.yaml', writeRuntimeConfig({ backbone: { storage }, router: { kind, capabilities: routed } })],
    ['verify_report.json', json(report)],
    ['README.md', text(readme(run, report))],
    ['LICENSE', text(facts.licence)],
  ])
  // The router's file loses what only the run needed.
  parts.set('router/router.safetensors', writeSafetensors(router.tensors))
  for (const name of names) parts.set(`adapters/${name}.safetensors`, await student(`adapters/${name}.safetensors`))

  for (const [path, bytes] of facts.program ?? []) parts.set(path, bytes)

  const scratch = `${where.bundle}.${process.pid}.part`
  await removeFolder(scratch)
  const files = new FolderFiles(scratch)
  const adapterParameters = names.reduce((sum, name) => sum + architecture.adapters[name].parameters, 0)
  const manifest = await packBundle(files, parts, {
    size_limits: sizeLimits(architecture.backboneParameters, adapterParameters),
    build_timestamp: facts.timestamp,
    tool_version: facts.toolVersion,
    seed: run.seed,
    model_metadata: {
      architecture: 'llama',
      storage,
      backbone_parameters: architecture.backboneParameters,
      backbone_ratio: architecture.backboneRatio,
    },
    capabilities: Object.fromEntries(
      run.capabilities.map(({ name, metric, example }) => {
        const { student: score, ratio, lower, n, verdict } = report.capabilities[name]
        const { parameters } = architecture.adapters[name]
        const measured = { metric, score, retention: ratio, lower_bound: lower, n, verdict, measured_storage: storage }
        const adapter = { adapter: `adapters/${name}.safetensors`, adapter_version: firstVersion, base_sha256: base }
        const restricted = facts.restricted?.includes(name) ?? false
        return [name, { ...adapter, parameters, restricted, example: example.prompt, ...measured }]
      }),
    ),
  })
  await assertVerified(files)
  if (exists(where.bundle)) await removeFolder(where.bundle)
  await rename(scratch, where.bundle)
  const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.size, 0)
  return { bytes, bundleId: manifest.bundle_id }
}

/** Most bytes by the counts of parameters, so that a larger network cannot hide: f16, and a MiB for headers and scales. */
function sizeLimits(backbone: number, adapters: number) {
  const [weights, other] = [2 * Math.max(backbone, adapters) + 2 ** 20, 2 ** 26]
  return { weights, other, total: 2 * (backbone + adapters) + 2 ** 20 + other }
}

function readme(run: NiwtRun, report: GateReport): string {
  const percent = (value: number) => `${(100 * value).toFixed(1)} %`
  const rows = run.capabilities.map(({ name, description }) => {
    const { metric, student, ratio, lower, n, verdict } = report.capabilities[name]
    return `| ${name} | ${description} | ${metric} ${percent(student)} | ${percent(ratio)} (at least ${percent(lower)}) | ${n} | ${verdict} |`
  })
  return `# A Nexus bundle

One backbone and an adapter for each of these capabilities. It runs by itself: the model it was made from is not needed.

| capability | what it does | score | kept of the original | n | verdict |
|---|---|---|---|---|---|
${rows.join('\n')}

    npx nexus verify nexus_bundle_v1
    npx nexus generate nexus_bundle_v1 --prompt '${run.capabilities[0].example.prompt}'

With Node 22 or newer and nothing else of Nexus, from the folder that holds this one:

    npm install webgpu
    node nexus_bundle_v1/bin/nexus_cli.mjs --prompt '${run.capabilities[0].example.prompt}'
`
}
