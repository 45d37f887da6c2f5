import type { FloatType } from '../core/dtype.ts'
import type { Random } from '../core/random.ts'
import { type DecoderConfig, type LinearName, linearShapes } from '../formats/model-config.ts'
import { foldScale, readPeft } from '../formats/peft.ts'
import { splitModules } from '../formats/peft-fused.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { LoraPair } from '../kernels/lora.ts'
import type { LinearUpdates } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** Rank of the update of each linear layer, by `<layer>.<linear>`. */
export type Ranks = Readonly<Record<string, number>>

const prefix = 'base_model.model.model.layers.'

/**
 * A skill that can be put on a decoder and taken off: a low-rank update of its linear layers. The scale is 1, folded
 * into B, so that every program which reads the file computes the same.
 */
export class Adapter implements LinearUpdates, Disposable {
  readonly name: string
  /** A and B matrices by the names of PEFT files. */
  readonly parameters: ReadonlyMap<string, Tensor<FloatType>>
  readonly #gpu: Gpu
  readonly #scope: Scope

  private constructor(gpu: Gpu, name: string, scope: Scope, parameters: ReadonlyMap<string, Tensor<FloatType>>) {
    this.#gpu = gpu
    this.name = name
    this.#scope = scope
    this.parameters = parameters
  }

  /** A new adapter: A from N(0, 1/K), B zero, so that it changes nothing until it is trained. */
  static create(gpu: Gpu, name: string, config: DecoderConfig, ranks: Ranks, random: Random): Adapter {
    const tensors = new Map<string, CpuTensor>()
    for (let layer = 0; layer < config.layers; layer++)
      for (const [linear, [n, k]] of Object.entries(linearShapes(config))) {
        const rank = ranks[`${layer}.${linear}`]
        if (!rank) continue
        tensors.set(
          `${prefix}${layer}.${linear}.lora_A.weight`,
          cpuTensor('F32', [rank, k], random.normals(rank * k, k ** -0.5)),
        )
        tensors.set(
          `${prefix}${layer}.${linear}.lora_B.weight`,
          cpuTensor('F32', [n, rank], new Float32Array(n * rank)),
        )
      }
    return Adapter.load(gpu, name, config, tensors)
  }

  /**
   * Puts the tensors of an adapter file on the GPU, in f32.
   * @throws SyntaxError when a tensor does not belong to a decoder of `config`.
   */
  static load(gpu: Gpu, name: string, config: DecoderConfig, tensors: ReadonlyMap<string, CpuTensor>): Adapter {
    checkAdapter(name, config, tensors)
    const scope = gpu.scope(`adapter ${name}`)
    const parameters = new Map<string, Tensor<FloatType>>()
    // In the order of their names, wherever they come from: sums over parameters must not depend on the file.
    for (const [key, tensor] of [...tensors].sort(([x], [y]) => (x < y ? -1 : 1)))
      parameters.set(key, scope.upload('f32', tensor.shape, toFloat32(tensor), key))
    return new Adapter(gpu, name, scope, parameters)
  }

  /**
   * Puts an adapter that PEFT wrote on the GPU, its scales folded into B.
   * @param settings the parsed adapter_config.json.
   * @param tensors of adapter_model.safetensors.
   * @throws SyntaxError when it is no LoRA of a decoder of `config`.
   */
  static fromPeft(
    gpu: Gpu,
    name: string,
    config: DecoderConfig,
    settings: unknown,
    tensors: ReadonlyMap<string, CpuTensor>,
  ): Adapter {
    const folded = new Map<string, CpuTensor>()
    for (const module of splitModules(readPeft(settings, tensors), config)) {
      const { a, b } = foldScale(module)
      const path = `base_model.model.${module.module}`
      folded.set(`${path}.lora_A.weight`, cpuTensor('F32', module.a.shape, a))
      folded.set(`${path}.lora_B.weight`, cpuTensor('F32', module.b.shape, b))
    }
    return Adapter.load(gpu, name, config, folded)
  }

  /** Number of parameters. */
  get parameterCount(): number {
    let count = 0
    for (const tensor of this.parameters.values()) count += tensor.size
    return count
  }

  pairFor(layer: number, linear: LinearName): LoraPair | undefined {
    const a = this.parameters.get(`${prefix}${layer}.${linear}.lora_A.weight`)
    const b = this.parameters.get(`${prefix}${layer}.${linear}.lora_B.weight`)
    return a && b && { a, b, scale: 1 }
  }

  /** The matrices as tensors of a file, in PEFT's layout. */
  async toTensors(dtype: 'F32' | 'F16'): Promise<Map<string, CpuTensor>> {
    const tensors = new Map<string, CpuTensor>()
    for (const [key, tensor] of this.parameters)
      tensors.set(key, cpuTensor(dtype, tensor.shape, await this.#gpu.read(tensor)))
    return tensors
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]()
  }
}

/**
 * Checks that tensors are pairs of A (rank, K) and B (N, rank) for linear layers of `config`, and nothing else.
 * @throws SyntaxError naming the first that is not.
 */
export function checkAdapter(name: string, config: DecoderConfig, tensors: ReadonlyMap<string, CpuTensor>): void {
  const fault = (reason: string) => new SyntaxError(`Cannot load adapter ${name}: ${reason}`)
  if (tensors.size === 0) throw fault('it holds no tensors')
  const shapes = linearShapes(config)
  for (const [key, { shape }] of tensors) {
    const match = /^base_model\.model\.model\.layers\.(\d+)\.([\w.]+)\.lora_([AB])\.weight$/.exec(key)
    const linear = match && shapes[match[2] as LinearName]
    if (!match || !linear || Number(match[1]) >= config.layers)
      throw fault(`${key} belongs to no linear layer of the backbone`)
    const other = tensors.get(key.replace(/lora_[AB]/, match[3] === 'A' ? 'lora_B' : 'lora_A'))
    if (!other) throw fault(`${key} has no counterpart`)
    const [n, k] = linear
    const fits =
      shape.length === 2 &&
      (match[3] === 'A' ? shape[1] === k && other.shape[1] === shape[0] : shape[0] === n && other.shape[0] === shape[1])
    if (!fits) throw fault(`${key} is [${shape.join(',')}], which does not fit a layer (${n}, ${k})`)
  }
}
