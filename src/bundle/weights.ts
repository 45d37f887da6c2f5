import { BundleError } from '../core/errors.ts'
import { sameShape, sizeOf } from '../core/shape.ts'
import { checkWeights, type DecoderConfig, linearShapes, parseModelConfig } from '../formats/model-config.ts'
import { routerTensors } from '../formats/router-kind.ts'
import { parseSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import type { Files } from './files.ts'
import type { Manifest } from './manifest.ts'
import { parseRuntimeConfig } from './runtime-config.ts'
import { backboneShapes } from './storage.ts'

/**
 * Checks that the weight files hold the tensors of the network that config.json describes and the adapters of the
 * manifest, in the types that it names, and nothing beside: a tensor too many is refused by name.
 * @throws BundleError or SyntaxError with the reason.
 */
export async function checkContents(files: Files, manifest: Manifest): Promise<void> {
  const { storage, backbone_parameters: parameters } = manifest.model_metadata
  const names = Object.keys(manifest.capabilities)
  const runtime = parseRuntimeConfig(await files.read('config/runtime.yaml'))
  if (runtime.backbone.storage !== storage)
    throw new BundleError(`config/runtime.yaml says ${runtime.backbone.storage}, the manifest ${storage}`)
  const { kind, capabilities: routed } = runtime.router
  // Trained weights know nothing of what is restricted; prototypes of it are never looked at.
  const known = kind === 'linear' ? names.filter((name) => !manifest.capabilities[name].restricted) : names
  if ([...routed].sort().join() !== [...known].sort().join())
    throw new BundleError('config/runtime.yaml routes to other capabilities than the manifest has')

  const config = parseModelConfig(JSON.parse(new TextDecoder().decode(await files.read('backbone/config.json'))))
  const shapes = backboneShapes(await readTensors(files, 'backbone/backbone.safetensors'), storage)
  checkWeights(config, shapes)
  let count = 0
  for (const { shape } of shapes.values()) count += sizeOf(shape)
  if (count !== parameters)
    throw new BundleError(`the backbone has ${count} parameters, the manifest says ${parameters}`)

  for (const [name, { adapter, parameters }] of Object.entries(manifest.capabilities))
    checkAdapterTensors(name, config, await readTensors(files, adapter), parameters)

  const router = await readTensors(files, 'router/router.safetensors')
  const expected = routerTensors[kind](config.width)
  const fits = Object.entries(expected).every(([name, width]) => {
    const tensor = router.get(name)
    return tensor?.dtype === 'F32' && sameShape(tensor.shape, [routed.length, width])
  })
  if (!fits || router.size !== Object.keys(expected).length)
    throw new BundleError(
      `the router must hold ${Object.keys(expected).join(' and ')} for each capability and nothing else`,
    )
}

/** Tensors of a weight file, whose metadata says no more than which library's layout it follows. */
async function readTensors(files: Files, path: string): Promise<ReadonlyMap<string, CpuTensor>> {
  const { tensors, metadata } = parseSafetensors(await files.read(path))
  for (const [key, value] of Object.entries(metadata))
    if (key !== 'format' || value !== 'pt')
      throw new BundleError(`the metadata of ${path} speaks of ${JSON.stringify(`${key}: ${value}`.slice(0, 80))}`)
  return tensors
}

function checkAdapterTensors(
  name: string,
  config: DecoderConfig,
  tensors: ReadonlyMap<string, CpuTensor>,
  parameters: number,
): void {
  const path = `adapters/${name}.safetensors`
  const shapes = linearShapes(config) as Readonly<Record<string, readonly [number, number] | undefined>>
  let count = 0
  for (const [key, { shape, dtype }] of tensors) {
    const match = /^base_model\.model\.model\.layers\.(\d+)\.([\w.]+)\.lora_([AB])\.weight$/.exec(key)
    const linear = match && shapes[match[2]]
    const rank = shape[match?.[3] === 'A' ? 0 : 1]
    const other = tensors.get(key.replace(/lora_[AB]/, match?.[3] === 'A' ? 'lora_B' : 'lora_A'))?.shape
    const fits =
      linear &&
      Number(match[1]) < config.layers &&
      shape.length === 2 &&
      (dtype === 'F16' || dtype === 'F32') &&
      rank <= Math.min(...linear) &&
      (match[3] === 'A' ? shape[1] === linear[1] && other?.[1] === rank : shape[0] === linear[0] && other?.[0] === rank)
    if (!fits)
      throw new BundleError(`${path} holds ${key} ${dtype} [${shape.join(',')}], which is no part of an adapter`)
    count += sizeOf(shape)
  }
  if (count !== parameters) throw new BundleError(`${path} has ${count} parameters, the manifest says ${parameters}`)
}
