import type { FloatType } from '../core/dtype.ts'
import { sameShape, showShape } from '../core/shape.ts'
import type { Backward, Step } from './step.ts'
import type { Tensor } from './tensor.ts'

interface Node {
  readonly op: string
  readonly output: Tensor
  readonly inputs: readonly Tensor[]
  readonly backward: Backward | 'none'
}

/** Adds two gradients of one tensor; the kernels room puts its `add` here when it is loaded. */
export type Accumulate = (step: Step, a: Tensor<FloatType>, b: Tensor<FloatType>) => Tensor<FloatType>

let accumulate: Accumulate = () => {
  throw new Error('Cannot add gradients: import src/kernels/add.ts first')
}

/** Tells the tape how to add gradients. The runtime has no kernels of its own. */
export function setAccumulate(add: Accumulate): void {
  accumulate = add
}

/** The ops of a step in the order in which they ran. */
export class Tape {
  #nodes: Node[] = []
  #recording = true

  /** Whether ops are taken down. */
  get recording(): boolean {
    return this.#recording
  }

  record(op: string, output: Tensor, inputs: readonly Tensor[], backward: Backward | 'none'): void {
    if (!this.#recording || !inputs.some((input) => input.requiresGrad)) return
    output.requiresGrad = true
    this.#nodes.push({ op, output, inputs, backward })
  }

  paused<T>(work: () => T): T {
    const before = this.#recording
    this.#recording = false
    try {
      return work()
    } finally {
      this.#recording = before
    }
  }

  backward(
    step: Step,
    output: Tensor,
    seed: Tensor,
    { retain, createGraph }: { retain: readonly Tensor[]; createGraph: boolean },
  ): Gradients {
    const kept = new Set([output, ...retain])
    const gradients = new Map<Tensor, Tensor>([[output, seed]])
    const walk = () => {
      for (const node of [...this.#nodes].reverse()) {
        const dy = gradients.get(node.output)
        if (!dy) continue
        if (node.backward === 'none') throw new TypeError(`Cannot differentiate ${node.op}: it has no gradient`)
        const grads = node.backward(dy as Tensor<never>)
        for (const [i, input] of node.inputs.entries()) {
          const grad = grads[i]
          if (!input.requiresGrad || !grad) continue
          if (!sameShape(grad.shape, input.shape))
            throw new RangeError(
              `Cannot differentiate ${node.op}: the gradient of input ${i} is ${showShape(grad.shape)}, ` +
                `the input ${showShape(input.shape)}`,
            )
          // A gradient made by a shader alone, not by ops, has no graph of its own: say so instead of losing it.
          if (createGraph && !grad.requiresGrad) this.record(`${node.op} backward`, grad, [...node.inputs, dy], 'none')
          const before = gradients.get(input)
          const sum = before ? accumulate(step, before as Tensor<FloatType>, grad as Tensor<FloatType>) : grad
          gradients.set(input, sum)
        }
        // Done with: every op that used this output came later and was walked already.
        if (!kept.has(node.output)) gradients.delete(node.output)
      }
    }
    if (createGraph) walk()
    else this.paused(walk)
    return new Gradients(gradients)
  }
}

/** The result of a backward pass. */
export class Gradients {
  readonly #byTensor: ReadonlyMap<Tensor, Tensor>

  constructor(byTensor: ReadonlyMap<Tensor, Tensor>) {
    this.#byTensor = byTensor
  }

  /**
   * dL/d(tensor), with its shape.
   * @throws ReferenceError when the loss does not depend on the tensor, or it wants no gradient.
   */
  get<D extends FloatType>(tensor: Tensor<D>): Tensor<D> {
    const gradient = this.#byTensor.get(tensor)
    if (!gradient) throw new ReferenceError(`Cannot get the gradient of ${tensor}: the loss does not depend on it`)
    return gradient as Tensor<D>
  }

  /** Whether the loss depends on `tensor`. */
  has(tensor: Tensor): boolean {
    return this.#byTensor.has(tensor)
  }
}
