// The f64 check: nothing is timed before its result passed it.
import type { FloatType } from '../src/core/dtype.ts'
import { Random } from '../src/core/random.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import type { Array64 } from '../tests/reference/array64.ts'
import { type Case, type Inputs, Maker, type Values } from './cases/case.ts'
import { errorOf } from './error.ts'

/** Largest error of a case that does not say its own. */
const usualTolerance = 2e-6
/** Gradients may be off by so many times what results may. */
const gradientShare = 4

/** How far a case is from f64. */
export interface Checked {
  /** Of what the op made: the largest error over the largest magnitude. */
  readonly error: number
  /** Of its gradients, where it has any. */
  readonly gradientError?: number
  readonly right: boolean
}

/** Runs a case once, on inputs of its own, and holds all that it made and its gradients against f64. */
export async function checkCase(gpu: Gpu, item: Case): Promise<Checked> {
  using scope = gpu.scope(`check of ${item.name}`)
  const inputs = item.inputs(new Maker())
  const tensors = uploadAll(inputs, scope)
  const values = valuesOf(inputs)
  const trained = Object.keys(inputs).filter((name) => inputs[name].trained)
  using step = gpu.step()
  const results = [item.op(step, tensors)].flat() as Tensor<FloatType>[]
  const made: ArrayLike<number>[] = []
  for (const result of results) made.push(await step.read(result))
  const wanted = [item.reference(values, made)].flat() as Array64[]
  if (wanted.length !== made.length) throw new Error(`The reference of ${item.name} does not give all that its op made`)
  const error = Math.max(...wanted.map((want, i) => errorOf(made[i], want)))
  const tolerance = item.tolerance ?? usualTolerance
  if (trained.length === 0) return { error, right: error <= tolerance }

  const [y] = results
  const seed = step.upload(y.dtype, y.shape, new Random(2).normals(y.size), 'seed')
  const gradients = step.backward(y, { seed })
  const slopes: Record<string, ArrayLike<number>> = {}
  for (const name of trained) slopes[name] = await step.read(gradients.get(tensors[name] as Tensor<FloatType>))
  const weights = await step.read(seed)
  const loss = (moved: Values<Inputs>) => dot(([item.reference(moved, made)].flat() as Array64[])[0].data, weights)
  const gradientError = slopeError(loss, values, slopes)
  return { error, gradientError, right: error <= tolerance && gradientError <= gradientShare * tolerance }
}

/** The inputs of a case on the GPU. */
export function uploadAll(inputs: Inputs, scope: Parameters<Inputs[string]['upload']>[0]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.upload(scope)]))
}

function valuesOf(inputs: Inputs): Values<Inputs> {
  return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.values]))
}

/** How far the inputs are moved at most, as a share of their magnitude. */
const move = 3e-5

/**
 * How far gradients are from those of `loss`. Along a random direction that gives every gradient the same weight, the slope
 * that they promise is held against the central difference of `loss` in f64: one that is off by some share of its length
 * is off by about that share there, wherever in it the error lies. A difference for each element would take days.
 * @param loss a number, of `values` with some of them moved.
 * @param slopes its gradients by the names of the inputs.
 */
export function slopeError(
  loss: (values: Record<string, Array64>) => number,
  values: Record<string, Array64>,
  slopes: Record<string, ArrayLike<number>>,
): number {
  const random = new Random(3)
  const lengths = Object.entries(slopes).map(([name, slope]) => {
    const [length, magnitude] = [norm(slope), norm(values[name].data) / Math.sqrt(slope.length)]
    return { name, length, reach: length * magnitude }
  })
  if (!lengths.every(({ length }) => Number.isFinite(length) && length > 0)) return Number.POSITIVE_INFINITY
  const h = move * Math.min(...lengths.map(({ reach }) => reach))
  const directions = lengths.map(({ name, length }) => {
    const direction = random.normals(slopes[name].length)
    // One length along the gradient itself, so that one of the right direction and a wrong length shows as well.
    const along = dot(direction, slopes[name]) / length - 1
    return {
      name,
      direction: Float64Array.from(direction, (v, i) => (v - (along * slopes[name][i]) / length) / length),
    }
  })
  const moved = (by: number) => {
    const there = { ...values }
    for (const { name, direction } of directions) {
      const { shape, data } = values[name]
      there[name] = { shape, data: data.map((value, i) => value + by * direction[i]) }
    }
    return loss(there)
  }
  const promised = directions.reduce((sum, { name, direction }) => sum + dot(direction, slopes[name]), 0)
  return Math.abs((moved(h) - moved(-h)) / (2 * h) - promised)
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

function norm(x: ArrayLike<number>): number {
  return Math.sqrt(dot(x, x))
}
