import type { FloatType } from '../core/dtype.ts'
import { sameShape, showShape } from '../core/shape.ts'
import { dynamicMap, unsignedDynamicMap } from '../formats/dynamic-map.ts'
import { type CpuTensor, cpuTensor, toFloat32, toUint32 } from '../formats/tensor.ts'
import { type AdamwTarget, adamw, adamwRates, clipGradients } from '../kernels/adamw.ts'
import { type Adamw8Target, adamw8, zeroMoments8 } from '../kernels/adamw8.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Gradients, Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'

/** Settings of an {@link Optimiser} that hold for all its steps. */
export interface OptimiserOptions {
  /** Decoupled weight decay of matrices; vectors (norms) get none. 0 unless told. */
  readonly decay?: number
  /** Largest norm of all gradients together; 1 unless told. */
  readonly clip?: number
  readonly beta1?: number
  readonly beta2?: number
  /**
   * Bits of a number of the moments; 32 unless told. Under 8, parameters of fewer than 4,096 elements keep 32, as in
   * bitsandbytes: they cost little, and norms and biases are where rounding shows.
   */
  readonly stateBits?: 8 | 32
}

/** Gradients by their parameters: those of one backward pass, or a sum of several. */
export type GradientSource = Pick<Gradients, 'has' | 'get'>

/** What the optimiser keeps of a parameter: m and v, as numbers or as codes with the largest magnitudes of their blocks. */
type Moments = Readonly<Record<string, Tensor<'f32' | 'u32'>>>

const least8BitSize = 4096

/** AdamW with its moments on the GPU. While it lives, its parameters want gradients. */
export class Optimiser implements Disposable {
  readonly parameters: ReadonlyMap<string, Tensor<FloatType>>
  readonly #options: OptimiserOptions
  readonly #scope: Scope
  readonly #moments = new Map<string, Moments>()
  readonly #maps: Tensor<'f32'> | undefined
  readonly #rates: Tensor<'f32'>
  readonly #gpu: Gpu
  #t = 0

  constructor(gpu: Gpu, parameters: ReadonlyMap<string, Tensor<FloatType>>, options: OptimiserOptions = {}) {
    this.#gpu = gpu
    this.parameters = parameters
    this.#options = options
    this.#scope = gpu.scope('optimiser')
    this.#rates = this.#scope.empty('f32', [3], 'rates')
    if (options.stateBits === 8)
      this.#maps = this.#scope.upload('f32', [512], [...dynamicMap, ...unsignedDynamicMap], 'maps')
    for (const [name, { shape, size }] of parameters)
      this.#moments.set(
        name,
        this.#maps && size >= least8BitSize
          ? { ...zeroMoments8(this.#scope, size, name) }
          : {
              m: this.#scope.filled('f32', shape, 0, `${name}.m`),
              v: this.#scope.filled('f32', shape, 0, `${name}.v`),
            },
      )
    this.setTraining(true)
  }

  /** Bytes of the moments. */
  get stateBytes(): number {
    return [...this.#moments.values()].flatMap(Object.values<Tensor>).reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Steps taken so far. */
  get steps(): number {
    return this.#t
  }

  /** Whether the parameters want gradients. */
  setTraining(on: boolean): void {
    for (const parameter of this.parameters.values()) parameter.requiresGrad = on
  }

  /** Begins the next step, at learning rate `lr`, for an {@link update} that is replayed. */
  begin(lr: number): void {
    const { beta1, beta2 } = this.#options
    this.#t++
    this.#gpu.write(this.#rates, adamwRates({ lr, t: this.#t }, { beta1, beta2 }))
  }

  /**
   * One step; parameters that the loss did not reach stay as they are.
   * @param lr its learning rate; without one it is the step that {@link begin} began.
   * @returns f32 [2]: the clipping factor and the norm of the gradients.
   */
  update(step: Step, gradients: GradientSource, lr?: number): Tensor<'f32'> {
    if (lr !== undefined) this.begin(lr)
    const { decay: matrixDecay = 0, clip = 1, beta1, beta2 } = this.#options
    const wide: AdamwTarget[] = []
    const narrow: Adamw8Target[] = []
    for (const [name, weight] of this.parameters) {
      if (!gradients.has(weight)) continue
      const decay = weight.shape.length > 1 ? matrixDecay : 0
      const target = { weight, gradient: gradients.get(weight), ...this.#moments.get(name)!, decay }
      if ('largest' in target) narrow.push(target as Adamw8Target)
      else wide.push(target as unknown as AdamwTarget)
    }
    const options = { rates: this.#rates, beta1, beta2 }
    if (narrow.length === 0) return adamw(step, wide, { ...options, clip })
    const all = [...wide, ...narrow].map(({ gradient }) => gradient)
    const factor = clipGradients(step, all, clip)
    adamw8(step, narrow, { ...options, clip: factor, maps: this.#maps! })
    return wide.length > 0 ? adamw(step, wide, { ...options, clip: factor }) : factor
  }

  /** Moments and step count, for a checkpoint. */
  async save(): Promise<Map<string, CpuTensor>> {
    const tensors = new Map<string, CpuTensor>([['t', cpuTensor('I32', [1], [this.#t])]])
    for (const [name, moments] of this.#moments)
      for (const [kind, tensor] of Object.entries(moments))
        tensors.set(
          `${kind}.${name}`,
          cpuTensor(tensor.dtype === 'u32' ? 'U32' : 'F32', tensor.shape, await this.#gpu.read(tensor)),
        )
    return tensors
  }

  /**
   * Takes up what {@link save} gave.
   * @throws SyntaxError when a moment is missing.
   */
  load(tensors: ReadonlyMap<string, CpuTensor>): void {
    const count = tensors.get('t')
    if (!count) throw new SyntaxError('Cannot resume the optimiser: its step count is missing')
    this.#t = new DataView(count.data.buffer, count.data.byteOffset).getInt32(0, true)
    for (const [name, moments] of this.#moments)
      for (const [kind, moment] of Object.entries(moments)) {
        const tensor = tensors.get(`${kind}.${name}`)
        if (!tensor) throw new SyntaxError(`Cannot resume the optimiser: ${kind}.${name} is missing`)
        if (!sameShape(tensor.shape, moment.shape) || (tensor.dtype === 'U32') !== (moment.dtype === 'u32'))
          throw new SyntaxError(
            `Cannot resume the optimiser: ${kind}.${name} is ${tensor.dtype} ${showShape(tensor.shape)}, ` +
              `it must be ${moment.dtype} ${showShape(moment.shape)}`,
          )
        this.#gpu.write(moment, tensor.dtype === 'U32' ? toUint32(tensor) : toFloat32(tensor))
      }
  }

  [Symbol.dispose](): void {
    this.setTraining(false)
    this.#scope[Symbol.dispose]()
  }
}
