import { type LinearName, linearShapes } from '../formats/model-config.ts'
import { type LoraStack, uploadLoraStack } from '../kernels/lora-batch.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Scope } from '../runtime/scope.ts'

/** The updates of several adapters side by side, for batches whose rows choose among them. */
export interface AdapterStacks {
  /** The adapters by their numbers. */
  readonly adapters: readonly LinearUpdates[]
  stackFor(layer: number, linear: LinearName): LoraStack | undefined
}

/**
 * Copies the updates of `adapters` into stacks of the model's storage type: later changes to an adapter do not reach them.
 * Ranks may differ, from layer to layer and between adapters.
 * @param scope where the stacks live.
 */
export async function stackAdapters(
  scope: Scope,
  model: Decoder,
  adapters: readonly LinearUpdates[],
): Promise<AdapterStacks> {
  const { gpu, config, dtype } = model
  const stacks = new Map<string, LoraStack>()
  const shapes = Object.entries(linearShapes(config)) as [LinearName, readonly [number, number]][]
  for (let layer = 0; layer < config.layers; layer++)
    for (const [linear, shape] of shapes) {
      const pairs = adapters.map((adapter) => adapter.pairFor(layer, linear))
      if (pairs.every((pair) => !pair)) continue
      const host = await Promise.all(
        pairs.map(async (pair) => {
          if (!pair) return { rank: 0, a: [], b: [], scale: 0 }
          const [a, b] = await Promise.all([gpu.read(pair.a), gpu.read(pair.b)])
          return { rank: pair.a.shape[0], a, b, scale: pair.scale }
        }),
      )
      stacks.set(`${layer}.${linear}`, uploadLoraStack(scope, dtype, shape, host))
    }
  return { adapters, stackFor: (layer, linear) => stacks.get(`${layer}.${linear}`) }
}
