import type { FloatType } from '../core/dtype.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import { type AdamwTarget, adamw } from '../kernels/adamw.ts'
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
}

interface Moments {
  readonly m: Tensor<'f32'>
  readonly v: Tensor<'f32'>
}

/** AdamW with its moments on the GPU. While it lives, its parameters want gradients. */
export class Optimiser implements Disposable {
  readonly parameters: ReadonlyMap<string, Tensor<FloatType>>
  readonly #options: OptimiserOptions
  readonly #scope: Scope
  readonly #moments = new Map<string, Moments>()
  readonly #gpu: Gpu
  #t = 0

  constructor(gpu: Gpu, parameters: ReadonlyMap<string, Tensor<FloatType>>, options: OptimiserOptions = {}) {
    this.#gpu = gpu
    this.parameters = parameters
    this.#options = options
    this.#scope = gpu.scope('optimiser')
    for (const [name, { shape }] of parameters)
      this.#moments.set(name, {
        m: this.#scope.filled('f32', shape, 0, `${name}.m`),
        v: this.#scope.filled('f32', shape, 0, `${name}.v`),
      })
    this.setTraining(true)
  }

  /** Steps taken so far. */
  get steps(): number {
    return this.#t
  }

  /** Whether the parameters want gradients. */
  setTraining(on: boolean): void {
    for (const parameter of this.parameters.values()) parameter.requiresGrad = on
  }

  /**
   * One step at learning rate `lr`; parameters that the loss did not reach stay as they are.
   * @returns f32 [2]: the clipping factor and the norm of the gradients.
   */
  update(step: Step, gradients: Gradients, lr: number): Tensor<'f32'> {
    const { decay = 0, clip = 1, beta1, beta2 } = this.#options
    const targets: AdamwTarget[] = []
    for (const [name, weight] of this.parameters) {
      if (!gradients.has(weight)) continue
      const gradient = gradients.get(weight)
      targets.push({ weight, gradient, ...this.#moments.get(name)!, decay: weight.shape.length > 1 ? decay : 0 })
    }
    this.#t++
    return adamw(step, targets, { rates: { lr, t: this.#t }, clip, beta1, beta2 })
  }

  /** Moments and step count, for a checkpoint. */
  async save(): Promise<Map<string, CpuTensor>> {
    const tensors = new Map<string, CpuTensor>([['t', cpuTensor('I32', [1], [this.#t])]])
    for (const [name, { m, v }] of this.#moments) {
      tensors.set(`m.${name}`, cpuTensor('F32', m.shape, await this.#gpu.read(m)))
      tensors.set(`v.${name}`, cpuTensor('F32', v.shape, await this.#gpu.read(v)))
    }
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
      for (const kind of ['m', 'v'] as const) {
        const tensor = tensors.get(`${kind}.${name}`)
        if (!tensor) throw new SyntaxError(`Cannot resume the optimiser: ${kind}.${name} is missing`)
        this.#gpu.write(moments[kind], toFloat32(tensor))
      }
  }

  [Symbol.dispose](): void {
    this.setTraining(false)
    this.#scope[Symbol.dispose]()
  }
}
