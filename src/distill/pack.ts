import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256 } from '../bundle/files.ts'
import { packBundle } from '../bundle/pack.ts'
import { assertVerified } from '../bundle/verify.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { exists, FolderFiles, readBytes, readJson, removeFolder } from '../host/files.ts'
import type { GateReport } from './gate.ts'
import { type NiwtRun, paths } from './run.ts'
import { readArchitecture } from './synthesize.ts'

/** What stage 6 needs beside the student. */
export interface PackFacts {
  readonly toolVersion: string
  /** ISO 8601; the same timestamp gives the same bytes. */
  readonly timestamp: string
  readonly tokenizer: object
  /** Text of the licence of the packed weights. */
  readonly licence: string
}

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
  const parts = new Map<string, Uint8Array<ArrayBuffer>>([
    ['backbone/backbone.safetensors', backbone],
    ['backbone/config.json', json(architecture.backbone)],
    ['tokenizer/tokenizer.json', json(facts.tokenizer)],
    ['config/runtime.json', json({ router: { kind: 'prototypes', capabilities: names } })],
    ['verify_report.json', json(report)],
    ['README.md', text(readme(run, report))],
    ['LICENSE', text(facts.licence)],
  ])
  // The router's file loses what only the run needed.
  parts.set(
    'router/router.safetensors',
    writeSafetensors(parseSafetensors(await student('router.safetensors')).tensors),
  )
  for (const name of names) parts.set(`adapters/${name}.safetensors`, await student(`adapters/${name}.safetensors`))

  const scratch = `${where.bundle}.${process.pid}.part`
  await removeFolder(scratch)
  const files = new FolderFiles(scratch)
  const manifest = await packBundle(files, parts, {
    build_timestamp: facts.timestamp,
    tool_version: facts.toolVersion,
    seed: run.seed,
    model_metadata: {
      architecture: 'llama',
      backbone_parameters: architecture.backboneParameters,
      backbone_ratio: architecture.backboneRatio,
    },
    capabilities: Object.fromEntries(
      run.capabilities.map(({ name, metric }) => {
        const { student: score, ratio, lower, n, verdict } = report.capabilities[name]
        const { parameters } = architecture.adapters[name]
        const measured = { metric, score, retention: ratio, lower_bound: lower, n, verdict }
        return [
          name,
          { adapter: `adapters/${name}.safetensors`, base_sha256: base, parameters, restricted: false, ...measured },
        ]
      }),
    ),
  })
  await assertVerified(files)
  if (exists(where.bundle)) await removeFolder(where.bundle)
  await rename(scratch, where.bundle)
  const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0)
  return { bytes, bundleId: manifest.bundle_id }
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
`
}
