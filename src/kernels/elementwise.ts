import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { elementwise as wgsl } from './wgsl.gen.ts'

const workgroups = (size: number) => grid(Math.ceil(size / 64))

/**
 * x · z, element by element.
 * @param x f32 or f16, any shape.
 * @param z the dtype and shape of `x`.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when the shapes differ.
 */
export function mul<D extends FloatType>(step: Step, x: Tensor<D>, z: Tensor<D>): Tensor<D> {
  expectShape('mul', x, 'z', z, x.shape)
  const y = step.empty(x.dtype, x.shape, 'mul')
  step.run(wgsl.mul, { x, z, y }, { size: x.size, factor: 0 }, { workgroups: workgroups(x.size), flops: x.size })
  return step.node('mul', y, [x, z], (dy) => [
    x.requiresGrad ? mul(step, dy, z) : null,
    z.requiresGrad ? mul(step, dy, x) : null,
  ])
}

/**
 * x · factor.
 * @param x f32 or f16, any shape.
 * @param factor a finite number.
 * @returns the dtype and shape of `x`.
 */
export function scale<D extends FloatType>(step: Step, x: Tensor<D>, factor: number): Tensor<D> {
  if (!Number.isFinite(factor)) throw new RangeError(`Cannot scale x by ${factor}: the factor must be finite`)
  const y = step.empty(x.dtype, x.shape, 'scale')
  step.run(wgsl.scale, { x, y }, { size: x.size, factor }, { workgroups: workgroups(x.size), flops: x.size })
  return step.node('scale', y, [x], (dy) => [scale(step, dy, factor)])
}

/**
 * x − z, element by element.
 * @param x f32 or f16, any shape.
 * @param z the dtype and shape of `x`.
 * @returns the dtype and shape of `x`.
 */
export function sub<D extends FloatType>(step: Step, x: Tensor<D>, z: Tensor<D>): Tensor<D> {
  return add(step, x, scale(step, z, -1))
}

/**
 * SiLU: x · sigmoid(x).
 * @param x f32 or f16, any shape.
 * @returns the dtype and shape of `x`.
 * @see Elfwing et al., Sigmoid-Weighted Linear Units, 2017.
 */
export function silu<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  return activation(step, 'silu', x)
}

/**
 * GELU in its tanh form: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).
 * @param x f32 or f16, any shape.
 * @returns the dtype and shape of `x`.
 * @see Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
 */
export function gelu<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  return activation(step, 'gelu', x)
}

function activation<D extends FloatType>(step: Step, name: 'silu' | 'gelu', x: Tensor<D>): Tensor<D> {
  const params = { size: x.size, factor: 0 }
  const y = step.empty(x.dtype, x.shape, name)
  step.run(wgsl[name], { x, y }, params, { workgroups: workgroups(x.size), flops: 6 * x.size })
  return step.node(name, y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    const operands = { x, z: dy, y: dx }
    step.run(wgsl[`${name}Backward`], operands, params, { workgroups: workgroups(x.size), flops: 12 * x.size })
    return [dx]
  })
}

/**
 * SwiGLU without its matrices: silu(gate) · value.
 * @param gate f32 or f16, any shape.
 * @param value the dtype and shape of `gate`.
 * @returns the dtype and shape of `gate`.
 * @throws RangeError when the shapes differ.
 * @see Shazeer, GLU Variants Improve Transformer, 2020.
 */
export function swiglu<D extends FloatType>(step: Step, gate: Tensor<D>, value: Tensor<D>): Tensor<D> {
  expectShape('swiglu', gate, 'value', value, gate.shape)
  const params = { size: gate.size, factor: 0 }
  const y = step.empty(gate.dtype, gate.shape, 'swiglu')
  const dispatch = { workgroups: workgroups(gate.size), flops: 7 * gate.size }
  step.run(wgsl.swiglu, { x: gate, z: value, y }, params, dispatch)
  return step.node('swiglu', y, [gate, value], (dy) => {
    const dx = step.empty(gate.dtype, gate.shape, 'dgate')
    const dz = step.empty(gate.dtype, gate.shape, 'dvalue')
    const operands = { x: gate, z: value, dy, dx, dz }
    step.run(wgsl.swigluBackward, operands, params, { workgroups: workgroups(gate.size), flops: 13 * gate.size })
    return [dx, dz]
  })
}
