import { type DecoderConfig, type LinearName, linearShapes } from '../formats/model-config.ts'
import { chooseMethod, type StreamingMethod } from '../pca/streaming-pca.ts'
import { windowRows } from '../runtime/windows.ts'

/**
 * Outputs of linear layers. They are W x + b of an input that is collected, so their covariance is W C Wᵀ: exact, once for
 * each layer instead of once for each token.
 */
const derivedKinds = {
  query: { from: 'attention.input', linear: 'self_attn.q_proj' },
  key: { from: 'attention.input', linear: 'self_attn.k_proj' },
  value: { from: 'attention.input', linear: 'self_attn.v_proj' },
  'attention.output': { from: 'attention.mixed', linear: 'self_attn.o_proj' },
  'ffn.gate': { from: 'ffn.input', linear: 'mlp.gate_proj' },
  'ffn.up': { from: 'ffn.input', linear: 'mlp.up_proj' },
  'ffn.output': { from: 'ffn.hidden', linear: 'mlp.down_proj' },
} as const

/**
 * What is profiled in each layer, in the order of the network. `output` is the residual stream behind the layer. q, k and v
 * read one input, gate and up another: they share its PCA.
 */
export const siteKinds = [
  ...['attention.input', 'query', 'key', 'value', 'attention.mixed', 'attention.output'],
  ...['ffn.input', 'ffn.gate', 'ffn.up', 'ffn.hidden', 'ffn.output', 'output'],
] as const

/** One activation of one layer. */
export interface Site {
  /** `3.ffn.input` */
  readonly name: string
  readonly layer: number
  readonly kind: string
  readonly dimension: number
  /** Of an output: the site that its linear layer reads. */
  readonly from?: { readonly site: string; readonly linear: LinearName }
  /** Queries, keys and values are compared as they are, mean included; all else is centred. */
  readonly centred: boolean
}

/** All sites of a model. */
export function sitesOf(config: DecoderConfig): Site[] {
  const shapes = linearShapes(config)
  const dimensionOf = (kind: string): number => {
    if (kind in derivedKinds) return shapes[derivedKinds[kind as keyof typeof derivedKinds].linear][0]
    if (kind === 'attention.mixed') return config.heads * config.headSize
    return kind === 'ffn.hidden' ? config.ffnWidth : config.width
  }
  return Array.from({ length: config.layers }, (_, layer) =>
    siteKinds.map((kind): Site => {
      const derived = kind in derivedKinds ? derivedKinds[kind as keyof typeof derivedKinds] : undefined
      return {
        ...{ name: `${layer}.${kind}`, layer, kind, dimension: dimensionOf(kind) },
        ...(derived && { from: { site: `${layer}.${derived.from}`, linear: derived.linear } }),
        centred: !['query', 'key', 'value'].includes(kind),
      }
    }),
  ).flat()
}

/** How the sites of a model are collected. */
export interface CollectionPlan {
  /** Names of the sites that each pass over the data collects. */
  readonly passes: readonly (readonly string[])[]
  /** By the name of each collected site. */
  readonly methods: Readonly<Record<string, StreamingMethod>>
  /** Of this many tokens one is taken into the PCAs. */
  readonly stride: number
  /** Rows where a window may begin on what any of the sites collects. */
  readonly window: number
  /** Most bytes that a pass keeps on the GPU. */
  readonly bytes: number
}

/** What {@link planCollection} may spend. */
export interface CollectionBudget {
  /** Bytes on the GPU for all covariances of a pass. */
  readonly memory: number
  /** Operations for the PCAs, as a share of the forward pass's. */
  readonly share: number
  /** Operations of the forward pass for a token. */
  readonly forwardFlops: number
  /** Tokens that a PCA takes in at once. */
  readonly pooled: number
}

/**
 * Operations that a byte of memory stands for. An update adds to a whole triangle however few tokens it takes, which moves 16
 * bytes a number. Measured on a GPU in software (bench/notes/pca.md); large GPUs have half of it.
 */
const flopsPerByte = 18
/** A product of an update, its rows gathered and summed, beside one of the forward pass: measured there as well. */
const overhead = 1.8

/**
 * Plans the passes: exact covariances while a dimension allows it, Frequent Directions above; as many layers a pass as
 * memory holds; and of the tokens as many as the share of the forward pass allows, the same for every site.
 */
export function planCollection(
  config: DecoderConfig,
  { memory, share, forwardFlops, pooled }: CollectionBudget,
): CollectionPlan {
  const streamed = sitesOf(config).filter(({ from }) => !from)
  const methods: Record<string, StreamingMethod> = {}
  const passes: string[][] = [[]]
  let [used, most, flops] = [0, 0, 0]
  for (let layer = 0; layer < config.layers; layer++) {
    const own = streamed.filter((site) => site.layer === layer)
    let bytes = 0
    const waiting = 4 * pooled
    for (const { name, dimension } of own) {
      const choice = chooseMethod(dimension, { memory: memory / 2 })
      methods[name] = choice.method
      bytes += choice.bytes + waiting * dimension
      // A sketch of ℓ = 64 costs about 8 ℓ a number.
      flops += overhead * (choice.method === 'covariance' ? dimension * (dimension + 1) : 512 * dimension)
      if (choice.method === 'covariance') flops += (flopsPerByte * 2 * choice.bytes) / pooled
    }
    if (used > 0 && used + bytes > memory) {
      passes.push([])
      used = 0
    }
    used += bytes
    most = Math.max(most, used)
    passes.at(-1)!.push(...own.map(({ name }) => name))
  }
  const stride = Math.max(1, Math.ceil(flops / (share * forwardFlops)))
  const window = windowRows(streamed.map(({ dimension }) => dimension))
  return { passes, methods, stride, window, bytes: most }
}
