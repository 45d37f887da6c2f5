import type { FloatType } from '../core/dtype.ts'
import type { LinearName } from '../formats/model-config.ts'
import type { ModelConfig } from '../formats/model-family.ts'
import { add } from '../kernels/add.ts'
import { attention } from '../kernels/attention.ts'
import { addBias } from '../kernels/bias.ts'
import { gelu, mul, swiglu } from '../kernels/elementwise.ts'
import { fusedLinear, gatedLinear, type Norm } from '../kernels/fused-linear.ts'
import { mostGemvRows } from '../kernels/gemv.ts'
import { anyLinear, type LinearWeight, type LoraPair, loraLinear } from '../kernels/lora.ts'
import { type LoraStack, loraBatch } from '../kernels/lora-batch.ts'
import { linear } from '../kernels/matmul.ts'
import { rmsNorm } from '../kernels/rms-norm.ts'
import { rope } from '../kernels/rope.ts'
import type { Step } from '../runtime/step.ts'
import { Tensor } from '../runtime/tensor.ts'
import type { DecoderWeights, Rotations } from './decoder-weights.ts'

/** Low-rank updates for the linear layers of a decoder, by `<layer>.<linear>`: what an adapter is to a model. */
export interface LinearUpdates {
  /** The update of one linear layer, or none. */
  pairFor(layer: number, linear: LinearName): LoraPair | undefined
}

/** Low-rank updates of several adapters in one batch: each row has the one that its id names. */
export interface BatchUpdates {
  /** u32 (B): numbers of adapters; `noAdapter` for none. */
  readonly ids: Tensor<'u32'>
  /** The updates of one linear layer by all adapters, or none. */
  stackFor(layer: number, linear: LinearName): LoraStack | undefined
}

/**
 * Called with every named activation as it is recorded, in the order of the network. Names of layer n:
 * `n.attention.input`, `n.query` (before RoPE), `n.attention.mixed`, `n.ffn.input`, `n.ffn.hidden`, `n.output`; and
 * `embedding` before all. Shapes are (B, T, features).
 */
export type Observe = (name: string, activation: Tensor<FloatType>) => void

/** What a forward pass is run with. */
export interface ForwardOptions {
  readonly updates?: LinearUpdates
  /** Updates that differ from row to row; in the place of `updates`. */
  readonly batchUpdates?: BatchUpdates
  readonly observe?: Observe
  /** Layers to leave out, as an ablation does. */
  readonly skip?: ReadonlySet<number>
  /** Runs layers `begin` and later alone, from the residual stream `x` (B, T, C) before them: `ids` are not looked up. */
  readonly from?: { readonly begin: number; readonly x: Tensor<FloatType> }
  /** Layers to run; all unless told. */
  readonly end?: number
  /** Keeps only the input of each layer for the backward pass and makes the rest again: less memory, a third more work. */
  readonly checkpoint?: boolean
  /** u32 (B): the position of the first token of each row; 0 unless told. */
  readonly starts?: Tensor<'u32'>
  /** Attends in the place of {@link attention}: to a cache, say. */
  readonly attend?: Attend
  /** u32 (B, T, 2): the keys that each token may see, for rows that hold several sequences (see `attention`). */
  readonly ranges?: Tensor<'u32'>
}

/**
 * Attention of layer `layer`: from q (B, T, H, D), k and v (B, T, G, D), all rotated, to (B, T, H, D).
 */
export type Attend = (
  layer: number,
  q: Tensor<FloatType>,
  k: Tensor<FloatType>,
  v: Tensor<FloatType>,
  options: { readonly scale: number; readonly window?: number; readonly ranges?: Tensor<'u32'> },
) => Tensor<FloatType>

/** The activation that each linear layer reads: layers that read the same one share one PCA. */
export const inputOf: Readonly<Record<LinearName, string>> = {
  'self_attn.q_proj': 'attention.input',
  'self_attn.k_proj': 'attention.input',
  'self_attn.v_proj': 'attention.input',
  'self_attn.o_proj': 'attention.mixed',
  'mlp.gate_proj': 'ffn.input',
  'mlp.up_proj': 'ffn.input',
  'mlp.down_proj': 'ffn.hidden',
}

/** What a decoder's layers are made of. */
export interface Network {
  readonly config: ModelConfig
  readonly weights: DecoderWeights
  readonly rotations: Rotations
}

/** One layer, from the residual stream `x` (B, T, C) before it to the one behind it. */
export function runLayer(
  net: Network,
  step: Step,
  layer: number,
  x: Tensor<FloatType>,
  options: ForwardOptions,
): Tensor<FloatType> {
  const { config } = net
  const { heads, kvHeads, headSize, sandwichNorms } = config
  const [batch, tokens] = x.shape
  const see = (name: string, activation: Tensor<FloatType>) => {
    options.observe?.(`${layer}.${name}`, activation)
    return activation
  }
  const project = (
    input: Tensor<FloatType>,
    name: LinearName,
    residual?: Tensor<FloatType>,
    before?: Norm<FloatType>,
  ) => linearOf(net, step, layer, name, input, options, residual, before)
  const norm = (y: Tensor<FloatType>, name: string) =>
    rmsNorm(step, y, denseOf(net, `model.layers.${layer}.${name}.weight`), { eps: config.normEps })
  const heading = (y: Tensor<FloatType>, count: number) => step.reshape(y, [batch, tokens, count, headSize])
  const slides = config.slidingLayers[layer]
  const { frequencies, factor } = slides ? net.rotations.sliding : net.rotations.full
  const turned = (y: Tensor<FloatType>, count: number, name: 'q_norm' | 'k_norm') => {
    const parts = heading(y, count)
    const normed = config.queryKeyNorm ? norm(parts, `self_attn.${name}`) : parts
    return rope(step, normed, frequencies, { factor, starts: options.starts })
  }
  // A family with norms behind its parts adds to the residual stream after them.
  const added = (input: Tensor<FloatType>, name: LinearName, behind: string) =>
    sandwichNorms ? add(step, x, norm(project(input, name), behind)) : project(input, name, x)

  // Where few rows are decoded, the products take in the norm before them and the gate between them.
  const plain = !options.observe && !options.updates && !options.batchUpdates
  const few = batch * tokens <= mostGemvRows && plain && !step.records([x])
  const normOf = (name: string) => ({
    gain: denseOf(net, `model.layers.${layer}.${name}.weight`),
    eps: config.normEps,
  })

  const inside = few ? normOf('input_layernorm') : undefined
  const input = few ? x : see('attention.input', norm(x, 'input_layernorm'))
  const query = see('query', project(input, 'self_attn.q_proj', undefined, inside))
  const q = turned(query, heads, 'q_norm')
  const k = turned(project(input, 'self_attn.k_proj', undefined, inside), kvHeads, 'k_norm')
  const v = heading(project(input, 'self_attn.v_proj', undefined, inside), kvHeads)
  const attend = options.attend ?? ((_, ...operands) => attention(step, ...operands))
  const window = slides ? config.slidingWindow : undefined
  const looks = { scale: config.attentionScale, window, ranges: options.ranges }
  const mixed = step.reshape(attend(layer, q, k, v, looks), [batch, tokens, heads * headSize])
  x = added(see('attention.mixed', mixed), 'self_attn.o_proj', 'post_attention_layernorm')

  const before = sandwichNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm'
  const gated = () => {
    const ffnInput = see('ffn.input', norm(x, before))
    const gate = project(ffnInput, 'mlp.gate_proj')
    const up = project(ffnInput, 'mlp.up_proj')
    return config.activation === 'silu' ? swiglu(step, gate, up) : mul(step, gelu(step, gate), up)
  }
  const halves = (['mlp.gate_proj', 'mlp.up_proj'] as const).map((name) => `model.layers.${layer}.${name}`)
  const [gate, up] = halves.map((key) => weightOf(net, key))
  const hidden =
    few && !halves.some((key) => net.weights.dense.has(`${key}.bias`))
      ? gatedLinear(step, x, gate, up, {
          activation: config.activation === 'silu' ? 'silu' : 'gelu',
          norm: normOf(before),
        })
      : gated()
  return see('output', added(see('ffn.hidden', hidden), 'mlp.down_proj', 'post_feedforward_layernorm'))
}

function weightOf(net: Network, key: string): LinearWeight {
  return net.weights.quantized.get(`${key}.weight`) ?? denseOf(net, `${key}.weight`)
}

/** A linear layer with its update, its bias, what it is added to, and the norm before it, of few rows without update. */
function linearOf(
  net: Network,
  step: Step,
  layer: number,
  name: LinearName,
  input: Tensor<FloatType>,
  { updates, batchUpdates }: ForwardOptions,
  residual?: Tensor<FloatType>,
  before?: Norm<FloatType>,
): Tensor<FloatType> {
  const key = `model.layers.${layer}.${name}`
  const weight = weightOf(net, key)
  const bias = net.weights.dense.get(`${key}.bias`)
  const pair = updates?.pairFor(layer, name)
  const stack = batchUpdates?.stackFor(layer, name)
  if (!pair && !stack && input.size / input.shape.at(-1)! <= mostGemvRows) {
    const y = fusedLinear(step, input, weight, { norm: before, base: bias ? undefined : residual })
    const biased = bias ? addBias(step, y, bias) : y
    return bias && residual ? add(step, residual, biased) : biased
  }
  // One base may be added where the product is made.
  const inside = pair || stack || !(weight instanceof Tensor) ? undefined : (residual ?? bias)
  const y = pair
    ? loraLinear(step, input, weight, pair)
    : inside
      ? linear(step, input, weight as Tensor<FloatType>, { base: inside })
      : anyLinear(step, input, weight)
  const updated = stack ? loraBatch(step, y, input, stack, batchUpdates!.ids) : y
  const biased = bias && inside !== bias ? addBias(step, updated, bias) : updated
  return residual && inside !== residual ? add(step, residual, biased) : biased
}

function denseOf({ weights }: Network, name: string): Tensor<FloatType> {
  return weights.dense.get(name)!
}
