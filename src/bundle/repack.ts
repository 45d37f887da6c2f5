import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import { type Files, MemoryFiles, sha256 } from './files.ts'
import { kindOf } from './layout.ts'
import type { BundleStorage } from './manifest.ts'
import { packBundle } from './pack.ts'
import { parseRuntimeConfig, writeRuntimeConfig } from './runtime-config.ts'
import { packBackbone, unpackBackbone } from './storage.ts'
import { openVerified } from './verify.ts'

/**
 * The same bundle with this program in the place of its own: bin/, src/ and index.html. A signature does not stay.
 * @param program contents by path.
 * @throws BundleError when the bundle is not as it was packed.
 */
export async function withProgram(
  source: Files,
  program: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
): Promise<MemoryFiles> {
  const { manifest, files } = await openVerified(source)
  const { schema_version: _, bundle_id: __, files: listed, invariants: ___, ...facts } = manifest
  const parts = new Map<string, Uint8Array<ArrayBuffer>>()
  for (const path of Object.keys(listed)) if (kindOf(path) !== 'code') parts.set(path, await files.read(path))
  for (const [path, bytes] of program) parts.set(path, bytes)
  const { total, weights, other } = facts.size_limits
  let added = 0
  for (const bytes of program.values()) added += bytes.length
  const size_limits = { weights, other: Math.max(other, added), total: total + added }
  const packed = new MemoryFiles()
  await packBundle(packed, parts, { ...facts, size_limits })
  return packed
}

/**
 * The same bundle with its backbone held otherwise, and the time of the bundle it comes from. What was measured stays as
 * it was and says with which storage; a signature does not stay.
 * @throws BundleError when the bundle is not as it was packed.
 */
export async function repack(source: Files, storage: BundleStorage): Promise<MemoryFiles> {
  const { manifest, files } = await openVerified(source)
  const { schema_version: _, bundle_id: __, files: listed, invariants: ___, size_limits: ____, ...facts } = manifest
  const parts = new Map<string, Uint8Array<ArrayBuffer>>()
  for (const path of Object.keys(listed)) parts.set(path, await files.read(path))
  const tensors = unpackBackbone(parseSafetensors(parts.get('backbone/backbone.safetensors')!).tensors)
  const backbone = writeSafetensors(packBackbone(tensors, storage), { format: 'pt' })
  parts.set('backbone/backbone.safetensors', backbone)
  const { router } = parseRuntimeConfig(parts.get('config/runtime.yaml')!)
  parts.set('config/runtime.yaml', writeRuntimeConfig({ backbone: { storage }, router }))
  const base_sha256 = await sha256(backbone)
  const capabilities = Object.entries(manifest.capabilities).map(([name, c]) => [name, { ...c, base_sha256 }] as const)
  const repacked = new MemoryFiles()
  await packBundle(repacked, parts, {
    ...facts,
    model_metadata: { ...facts.model_metadata, storage },
    capabilities: Object.fromEntries(capabilities),
  })
  return repacked
}
