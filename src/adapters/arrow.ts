import type { FloatType } from '../core/dtype.ts'
import type { LinearName } from '../formats/model-config.ts'
import type { Decoder } from '../models/decoder.ts'
import type { Tensor } from '../runtime/tensor.ts'
import type { Adapter } from './adapter.ts'

/** The direction of a layer's input to which an adapter answers most. */
export interface ArrowPrototype {
  readonly layer: number
  /** f32 (K), of length 1. */
  readonly direction: Float32Array
}

/** The linear layer whose update speaks for the adapter: all that read the same input would say much the same. */
const speaker: LinearName = 'self_attn.q_proj'
const sweeps = 100

/**
 * Arrow's prototypes of an adapter: for each layer the top right singular vector of B · A, which needs no training.
 * @returns none for layers without an update or whose update is zero.
 * @see Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of LoRAs, 2024, section 4.1.
 */
export async function arrowPrototypes(adapter: Adapter, layers: number, model: Decoder): Promise<ArrowPrototype[]> {
  const prototypes: ArrowPrototype[] = []
  for (let layer = 0; layer < layers; layer++) {
    const pair = adapter.pairFor(layer, speaker)
    if (!pair) continue
    const [a, b] = await Promise.all([model.gpu.read(pair.a), model.gpu.read(pair.b)])
    const direction = topRightSingularVector(Float64Array.from(a), Float64Array.from(b), pair.a.shape[0])
    if (direction) prototypes.push({ layer, direction: Float32Array.from(direction) })
  }
  return prototypes
}

/**
 * The top right singular vector of B · A, by power iteration on Aᵀ Bᵀ B A.
 * @param a (rank, K).
 * @param b (N, rank).
 * @returns (K) of length 1; undefined where the product is zero.
 */
export function topRightSingularVector(a: Float64Array, b: Float64Array, rank: number): Float64Array | undefined {
  const k = a.length / rank
  const n = b.length / rank
  const gram = new Float64Array(rank * rank) // Bᵀ B
  for (let i = 0; i < n; i++)
    for (let r = 0; r < rank; r++)
      for (let s = 0; s < rank; s++) gram[r * rank + s] += b[i * rank + r] * b[i * rank + s]
  // The sum of A's rows weighted by how much B lets through: it is no eigenvector of another value but by accident.
  let v = new Float64Array(k)
  for (let r = 0; r < rank; r++)
    for (let c = 0; c < k; c++) v[c] += a[r * k + c] * (gram[r * rank + r] + 1e-12 * (r + 1))
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const low = new Float64Array(rank)
    for (let r = 0; r < rank; r++) for (let c = 0; c < k; c++) low[r] += a[r * k + c] * v[c]
    const mixed = new Float64Array(rank)
    for (let r = 0; r < rank; r++) for (let s = 0; s < rank; s++) mixed[r] += gram[r * rank + s] * low[s]
    const next = new Float64Array(k)
    for (let r = 0; r < rank; r++) for (let c = 0; c < k; c++) next[c] += a[r * k + c] * mixed[r]
    const length = Math.hypot(...next)
    if (!(length > 0)) return undefined
    v = next.map((value) => value / length)
  }
  return v
}

/** Chooses the adapter whose directions a prompt's states point along most, on average over layers and tokens. */
export class ArrowRouter {
  readonly capabilities: readonly string[]
  readonly #backbone: Decoder
  readonly #prototypes: readonly (readonly ArrowPrototype[])[]

  /** @param prototypes of each capability. */
  constructor(backbone: Decoder, capabilities: readonly string[], prototypes: readonly (readonly ArrowPrototype[])[]) {
    this.#backbone = backbone
    this.capabilities = capabilities
    this.#prototypes = prototypes
  }

  /**
   * The capability of a prompt.
   * @param ids one or more token ids.
   */
  async choose(ids: readonly number[]): Promise<{ capability: string; score: number }> {
    const { gpu, config } = this.#backbone
    using step = gpu.step({ label: 'route' })
    const inputs = new Map<number, Tensor<FloatType>>()
    step.withoutGradients(() =>
      this.#backbone.hidden(step, step.upload('u32', [1, ids.length], ids), {
        observe(name, x) {
          const layer = /^(\d+)\.attention\.input$/.exec(name)?.[1]
          if (layer !== undefined) inputs.set(Number(layer), x)
        },
      }),
    )
    const states = new Map<number, Float32Array>()
    for (const [layer, input] of inputs) states.set(layer, Float32Array.from(await step.read(input)))
    const scores = this.#prototypes.map((prototypes) => {
      let sum = 0
      for (const { layer, direction } of prototypes) {
        const values = states.get(layer)!
        for (let t = 0; t < ids.length; t++) {
          const row = values.subarray(t * config.width, (t + 1) * config.width)
          sum += Math.abs(row.reduce((all, value, c) => all + value * direction[c], 0)) / (Math.hypot(...row) || 1)
        }
      }
      return sum / Math.max(1, prototypes.length * ids.length)
    })
    const best = scores.indexOf(Math.max(...scores))
    return { capability: this.capabilities[best], score: scores[best] }
  }
}
