import type { DType } from '../core/dtype.ts'
import type { Shape } from '../core/shape.ts'
import { type CpuTensor, toFloat32 } from '../formats/tensor.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { scoredPlaces, valuesAt } from '../train/picked.ts'
import type { CaptureRows } from './capture-store.ts'

/**
 * What the terms of a loss read, by name: `ids` u32 (B, T); `places` u32 (n), those that are scored; `counts` f32 (n), what
 * each counts; `share` f32 [1], one over their sum; `anchored` f32 (B, T), the share of each token in the anchors; `targets`
 * u32 (n); `top.ids` and `top.probabilities` (n, K); `anchor.<activation>` f32 (B, T, R).
 */
export type TermInputs = ReadonlyMap<string, Tensor>

/** The values of {@link TermInputs}. */
export type InputValues = ReadonlyMap<
  string,
  { readonly dtype: 'f32' | 'u32'; readonly shape: Shape; readonly values: ArrayLike<number> }
>

/** Which of the inputs are read, beside those that always are. */
export interface Wanted {
  readonly targets: boolean
  readonly top: boolean
  readonly anchors: boolean
}

/**
 * The values of some rows of a capture.
 * @throws RangeError when no token has a weight.
 */
export function inputValues(rows: CaptureRows, wanted: Wanted): InputValues {
  const weights = rows.columns.get('weights')!.values as Float32Array
  const places = scoredPlaces(weights)
  const n = places.padded.length
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const found: [string, 'f32' | 'u32', Shape, ArrayLike<number>][] = [
    ['ids', 'u32', [rows.rows, rows.tokens], idsOf(rows)],
    ['places', 'u32', [n], places.padded],
    ['counts', 'f32', [n], valuesAt(places, weights, 1, 0)],
    ['share', 'f32', [1], [1 / total]],
    ['anchored', 'f32', [rows.rows, rows.tokens], anchoredShares(rows)],
  ]
  if (wanted.targets) found.push(['targets', 'u32', [n], valuesAt(places, targetsOf(rows))])
  for (const [name, { shape, values }] of rows.columns) {
    if (wanted.top && name.startsWith('top.'))
      found.push([name, name === 'top.ids' ? 'u32' : 'f32', [n, shape[1]], valuesAt(places, values, shape[1])])
    if (wanted.anchors && name.startsWith('anchor.')) found.push([name, 'f32', [rows.rows, ...shape], values])
  }
  return new Map(found.map(([name, dtype, shape, values]) => [name, { dtype, shape, values }]))
}

/**
 * Shares of the tokens that are anchored, f32 (rows · tokens), together 1. The first of a row has none: models use it as a
 * sink of attention, and it says little of the text. Nor have those behind the last that is trained, which are padding.
 */
function anchoredShares({ rows, tokens, columns }: CaptureRows): Float32Array<ArrayBuffer> {
  const trained = columns.get('weights')!.values
  const shares = new Float32Array(rows * tokens)
  let counted = 0
  for (let r = 0; r < rows; r++) {
    const last = trained.subarray(r * tokens, (r + 1) * tokens).findLastIndex((weight) => weight > 0)
    shares.fill(1, r * tokens + 1, r * tokens + Math.max(1, last + 1))
    counted += Math.max(0, last)
  }
  return shares.map((one) => one / Math.max(1, counted))
}

/** Uploads inputs into the memory of a step, or of any scope. */
export function uploadInputs(scope: Scope, inputs: InputValues): TermInputs {
  return new Map(
    [...inputs].map(([name, { dtype, shape, values }]) => [name, scope.upload(dtype, shape, values, name)]),
  )
}

/** Writes inputs into tensors of the same shapes. */
export function writeInputs(gpu: Gpu, tensors: TermInputs, inputs: InputValues): void {
  for (const [name, { values }] of inputs) gpu.write(tensors.get(name)!, values)
}

/** One of the inputs. @throws RangeError when it was not asked for. */
export function inputOf<D extends DType>(inputs: TermInputs, name: string, dtype: D): Tensor<D> {
  const tensor = inputs.get(name)
  if (tensor?.dtype !== dtype)
    throw new RangeError(`Cannot read ${name}: the inputs are ${[...inputs.keys()].join(', ')}`)
  return tensor as Tensor<D>
}

/** Projections on the GPU. */
export function uploadBases(scope: Scope, bases: ReadonlyMap<string, CpuTensor>): Map<string, Tensor<'f32'>> {
  return new Map([...bases].map(([name, basis]) => [name, scope.upload('f32', basis.shape, toFloat32(basis), name)]))
}

/** Inputs of rows: all ids but the last of each. */
export function idsOf({ rows, tokens, columns }: CaptureRows): Uint32Array<ArrayBuffer> {
  const { values } = columns.get('ids')!
  return Uint32Array.from({ length: rows * tokens }, (_, i) => values[i + Math.floor(i / tokens)])
}

/** Targets of rows: all ids but the first of each. */
export function targetsOf({ rows, tokens, columns }: CaptureRows): Uint32Array<ArrayBuffer> {
  const { values } = columns.get('ids')!
  return Uint32Array.from({ length: rows * tokens }, (_, i) => values[i + Math.floor(i / tokens) + 1])
}
