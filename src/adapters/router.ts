import type { RouterKind } from '../formats/router-kind.ts'
import { type CpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { Decoder } from '../models/decoder.ts'
import { LinearRouter } from './linear-router.ts'

/**
 * The pooled state of a prompt: the mean over its tokens of the backbone's first layer output, without any adapter.
 * @param ids one or more token ids.
 * @returns f32 (C)
 */
export async function pool(backbone: Decoder, ids: readonly number[]): Promise<Float32Array> {
  if (ids.length === 0) throw new RangeError('Cannot route an empty prompt')
  const width = backbone.config.width
  using step = backbone.gpu.step({ label: 'route' })
  const skip = new Set(Array.from({ length: backbone.config.layers - 1 }, (_, i) => i + 1))
  const states = await step.read(backbone.hidden(step, step.upload('u32', [1, ids.length], ids), { skip }))
  const pooled = new Float32Array(width)
  for (let i = 0; i < states.length; i++) pooled[i % width] += states[i] / ids.length
  return pooled
}

/** Chooses a capability by a prompt's pooled state. */
export interface Router {
  readonly capabilities: readonly string[]
  /** The capability, and how sure the router is, at most 1. */
  choose(state: Float32Array): { capability: string; score: number }
}

/**
 * The router that a file holds.
 * @param capabilities in the order of its rows.
 * @param open those that it may choose; the rows of all others are left out.
 * @returns none when there is nothing to choose.
 */
export function readRouter(
  kind: RouterKind,
  tensors: ReadonlyMap<string, CpuTensor>,
  capabilities: readonly string[],
  open: readonly string[],
): Router | undefined {
  const kept = capabilities.filter((name) => open.includes(name))
  if (kept.length === 0) return undefined
  const rowsOf = (name: string) => {
    const tensor = tensors.get(name)
    if (!tensor) throw new SyntaxError(`Cannot read the router: ${name} is missing`)
    const width = tensor.shape[1]
    const values = toFloat32(tensor)
    return kept.map((capability) => {
      const row = capabilities.indexOf(capability)
      return values.subarray(row * width, (row + 1) * width)
    })
  }
  if (kind === 'prototypes') return new PrototypeRouter(kept, rowsOf('prototypes'))
  const weights = rowsOf('weights').map((row) => Float64Array.from(row))
  return new LinearRouter(
    kept,
    weights,
    Float64Array.from(rowsOf('bias'), ([value]) => value),
  )
}

/** Chooses the capability whose prototype points in the direction nearest to a prompt's pooled state. */
export class PrototypeRouter implements Router {
  readonly capabilities: readonly string[]
  readonly #prototypes: readonly Float32Array[]
  readonly #centre: Float32Array

  /** @param prototypes f32 (C) for each capability. */
  constructor(capabilities: readonly string[], prototypes: readonly Float32Array[]) {
    if (capabilities.length !== prototypes.length || capabilities.length === 0)
      throw new RangeError(
        `Cannot route among ${capabilities.length} capabilities with ${prototypes.length} prototypes`,
      )
    this.capabilities = capabilities
    this.#centre = prototypes[0].map((_, c) => prototypes.reduce((sum, row) => sum + row[c], 0) / prototypes.length)
    this.#prototypes = prototypes.map((row) => unit(row.map((value, c) => value - this.#centre[c])))
  }

  /** The nearest capability and its cosine. */
  choose(state: Float32Array): { capability: string; score: number } {
    const direction = unit(state.map((value, c) => value - this.#centre[c]))
    const scores = this.#prototypes.map((row) => row.reduce((sum, value, c) => sum + value * direction[c], 0))
    const best = scores.indexOf(Math.max(...scores))
    return { capability: this.capabilities[best], score: scores[best] }
  }
}

function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector) || 1
  return vector.map((value) => value / length)
}
