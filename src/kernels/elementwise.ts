import type { FloatType } from '../core/dtype.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, mapDispatch } from './parts.ts'
import { elementwiseQuads as quads, elementwise as single } from './wgsl.gen.ts'

/** The kernel for tensors of the size of `x`, its parameters, and a dispatch of `flops` operations an element. */
function planFor(step: Step, x: Tensor, factor = 0) {
  const { wgsl, width } = inParts(single, quads, x.size)
  const params = { size: x.size / width, factor }
  return { wgsl, params, dispatch: (flops: number) => mapDispatch(step.gpu, params.size, flops * x.size) }
}

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
  const { wgsl, params, dispatch } = planFor(step, x)
  step.run(wgsl.mul, { x, z, y }, params, dispatch(1))
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
  const { wgsl, params, dispatch } = planFor(step, x, factor)
  step.run(wgsl.scale, { x, y }, params, dispatch(1))
  return step.node('scale', y, [x], (dy) => [scale(step, dy, factor)])
}

/**
 * x − z, element by element.
 * @param x f32 or f16, any shape.
 * @param z the dtype and shape of `x`.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when the shapes differ.
 */
export function sub<D extends FloatType>(step: Step, x: Tensor<D>, z: Tensor<D>): Tensor<D> {
  expectShape('sub', x, 'z', z, x.shape)
  const y = step.empty(x.dtype, x.shape, 'sub')
  const { wgsl, params, dispatch } = planFor(step, x)
  step.run(wgsl.sub, { x, z, y }, params, dispatch(1))
  return step.node('sub', y, [x, z], (dy) => [dy, z.requiresGrad ? scale(step, dy, -1) : null])
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

/**
 * log(1 + x): of a squared error it is the Cauchy loss, whose slope falls where the error is huge.
 * @param x f32 or f16 above −1, any shape. Below 1e-4 it is right to 6e-8, not to the last digit.
 * @returns the dtype and shape of `x`.
 * @see Barron, A General and Adaptive Robust Loss Function, 2019.
 */
export function log1p<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  return activation(step, 'log1p', x)
}

function activation<D extends FloatType>(step: Step, name: 'silu' | 'gelu' | 'log1p', x: Tensor<D>): Tensor<D> {
  const { wgsl, params, dispatch } = planFor(step, x)
  const y = step.empty(x.dtype, x.shape, name)
  step.run(wgsl[name], { x, y }, params, dispatch(6))
  return step.node(name, y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    step.run(wgsl[`${name}Backward`], { x, z: dy, y: dx }, params, dispatch(12))
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
  const { wgsl, params, dispatch } = planFor(step, gate)
  const y = step.empty(gate.dtype, gate.shape, 'swiglu')
  step.run(wgsl.swiglu, { x: gate, z: value, y }, params, dispatch(7))
  return step.node('swiglu', y, [gate, value], (dy) => {
    const dx = step.empty(gate.dtype, gate.shape, 'dgate')
    const dz = step.empty(gate.dtype, gate.shape, 'dvalue')
    step.run(wgsl.swigluBackward, { x: gate, z: value, dy, dx, dz }, params, dispatch(13))
    return [dx, dz]
  })
}
