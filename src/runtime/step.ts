import type { DType, FloatType } from '../core/dtype.ts'
import { ResourceError } from '../core/errors.ts'
import { type Shape, showShape, sizeOf } from '../core/shape.ts'
import type { Dispatch, Entry, Operands, ParamValues } from './entry.ts'
import type { Gpu, Readable } from './gpu.ts'
import type { BoundBlock } from './pipelines.ts'
import { Scope } from './scope.ts'
import { type Gradients, Tape } from './tape.ts'
import { Tensor } from './tensor.ts'
import { windowBytes } from './windows.ts'

/** Makes the gradients of an op's inputs, in their order, from the gradient of its output; null where none is due. */
export type Backward<D extends DType = never> = (dy: Tensor<D>) => readonly (Tensor | null)[]

/** How a step behaves. */
export interface StepOptions {
  readonly label?: string
}

/** What a step has recorded so far. */
export interface StepCost {
  dispatches: number
  flops: number
  bytes: number
}

/**
 * Records GPU work, owns every intermediate tensor of it, and holds the tape for the backward pass. Ops only record;
 * `await step.read(t)` is the one place that waits.
 *
 * @example
 * using step = gpu.step()
 * const loss = crossEntropy(step, logits, targets)
 * const gradients = step.backward(loss)
 * adamw(step, weight, gradients.get(weight), state)
 * console.log(await step.read(loss))
 */
export class Step extends Scope {
  readonly #tape = new Tape()
  #outer: Step | undefined
  /** Dispatches, operations and bytes recorded so far. */
  readonly cost: StepCost = { dispatches: 0, flops: 0, bytes: 0 }

  /** @internal use {@link Gpu.step}. */
  constructor(gpu: Gpu, options: StepOptions) {
    super(gpu, options.label ?? 'step')
  }

  /**
   * Records one dispatch of a shader's entry point.
   * @param operands a tensor for every binding of the entry point, by name.
   * @param params a number for every member of its uniform struct.
   * @throws TypeError when the dtypes of the operands do not fit the shader.
   */
  run<E extends Entry>(entry: E, operands: Operands<E>, params: ParamValues<E>, dispatch: Dispatch<E>): void {
    const types: { elem?: FloatType; stored?: FloatType } = {}
    let bytes = 0
    const bound: BoundBlock[] = []
    for (const name in entry.bindings) {
      const { binding, type, width } = entry.bindings[name]
      const tensor = (operands as Record<string, Tensor>)[name]
      if (tensor.windows)
        throw new ResourceError(
          `Cannot run ${entry.kernel}.${entry.entry}: ${name} ${showShape(tensor.shape)} is larger than one binding of this adapter`,
        )
      if (type === 'elem' || type === 'stored') types[type] ??= tensor.dtype as FloatType
      const wanted = type === 'elem' || type === 'stored' ? types[type] : type
      if (tensor.dtype !== wanted)
        throw new TypeError(`Cannot run ${entry.kernel}.${entry.entry}: ${name} must be ${wanted}, got ${tensor.dtype}`)
      if (width > 1 && tensor.size % width !== 0)
        throw new RangeError(
          `Cannot run ${entry.kernel}.${entry.entry}: ${name} ${showShape(tensor.shape)} must be a multiple of ${width}`,
        )
      bytes += tensor.bytes
      bound.push({ binding, block: tensor.block, offset: tensor.offset, bytes: Math.ceil(tensor.bytes / 4) * 4 })
    }
    this.#count(dispatch.flops, dispatch.bytes ?? bytes)
    const { queue, pipelines, pool } = this.gpu
    if (pool.imagining) return
    const { elem = 'f32', stored = elem } = types
    const pipeline = pipelines.get(entry, elem, stored, (dispatch.constants ?? {}) as Record<string, number>)
    const values = queue.pushParams(entry, params)
    const layout = values ? { ...entry.params!, arena: values.arena } : null
    const command = {
      entry,
      pipeline,
      bindGroup: pipelines.bindGroup(pipeline, bound, layout),
      offset: values?.offset,
      workgroups: dispatch.workgroups,
      flops: dispatch.flops,
      bytes: dispatch.bytes ?? bytes,
    }
    queue.push(command)
  }

  #count(flops: number, bytes: number): void {
    for (let step: Step | undefined = this; step; step = step.#outer) {
      step.cost.dispatches++
      step.cost.flops += flops
      step.cost.bytes += bytes
    }
  }

  /**
   * Puts an op on the tape.
   * @param op its name, for messages.
   * @param output what it made; from now on it wants a gradient if any input does.
   * @param backward the gradients of `inputs`, or 'none' for an op that cannot be differentiated.
   * @returns `output`.
   */
  node<D extends DType>(
    op: string,
    output: Tensor<D>,
    inputs: readonly Tensor[],
    backward: Backward<D> | 'none',
  ): Tensor<D> {
    this.#tape.record(op, output, inputs, backward)
    return output
  }

  /** A step within this one: it has its own memory and tape, and its work counts as this one's. */
  inner(label: string): Step {
    const step = new Step(this.gpu, { label })
    step.#outer = this
    return step
  }

  /** Whether an op of `inputs` would go on the tape: a gradient may be asked of it. */
  records(inputs: readonly Tensor[]): boolean {
    return this.#tape.recording && inputs.some(({ requiresGrad }) => requiresGrad)
  }

  /** Runs `work` without recording gradients. */
  withoutGradients<T>(work: () => T): T {
    return this.#tape.paused(work)
  }

  /**
   * Gradients of `output` with respect to everything on the tape that wants one.
   * @param seed dL/d(output); by default 1, for which `output` must have one element.
   * @param retain intermediate tensors whose gradients are wanted too; those of parameters always are.
   * @param createGraph records the backward pass as well, so that gradients can be differentiated again.
   */
  backward(
    output: Tensor,
    {
      seed,
      retain = [],
      createGraph = false,
    }: { seed?: Tensor; retain?: readonly Tensor[]; createGraph?: boolean } = {},
  ): Gradients {
    if (!seed && output.size !== 1)
      throw new RangeError(`Cannot differentiate ${output}: a loss must have one element, or give a seed of its shape`)
    return this.#tape.backward(this, output, seed ?? this.filled(output.dtype as 'f32', output.shape, 1, 'seed'), {
      retain,
      createGraph,
    })
  }

  /**
   * The same elements under another shape; nothing is copied.
   * @throws RangeError when the sizes differ.
   */
  reshape<D extends DType>(x: Tensor<D>, shape: Shape): Tensor<D> {
    if (sizeOf(shape) !== x.size)
      throw new RangeError(`Cannot reshape x ${showShape(x.shape)} to ${showShape(shape)}: the sizes differ`)
    const y = new Tensor(x.dtype, shape, x.block, x.label, x.offset, x.windows)
    return this.node('reshape', y, [x], (dy) => [this.reshape(dy, x.shape)])
  }

  /**
   * Rows `begin` to `end` of the first dimension, as a window on the same memory. It has no gradient of its own.
   * @throws RangeError when the window is empty, passes the end, or does not begin at a multiple of 256 bytes.
   */
  rows<D extends DType>(x: Tensor<D>, begin: number, end: number): Tensor<D> {
    const [rows, ...rest] = x.shape
    const offset = x.offset + (x.bytes / rows) * begin
    if (!(begin >= 0 && begin < end && end <= rows))
      throw new RangeError(`Cannot take rows ${begin} to ${end} of x ${showShape(x.shape)}`)
    if (offset % windowBytes !== 0)
      throw new RangeError(
        `Cannot take rows of x ${showShape(x.shape)} from ${begin}: byte ${offset} is no multiple of ${windowBytes}`,
      )
    return new Tensor(x.dtype, [end - begin, ...rest], x.block, x.label, offset)
  }

  /** The elements of `tensor` as numbers, after everything recorded so far. */
  read<D extends DType>(tensor: Tensor<D>): Promise<Readable<D>> {
    return this.gpu.read(tensor)
  }

  /** The one number of a scalar tensor. */
  async readNumber(tensor: Tensor): Promise<number> {
    if (tensor.size !== 1) throw new RangeError(`Cannot read ${tensor} as one number: it has ${tensor.size}`)
    return (await this.read(tensor))[0]
  }
}

export type { Gradients } from './tape.ts'
