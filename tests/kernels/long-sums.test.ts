import { expect, test } from 'vitest'
import { decode, encode, type FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { dequantizeInt8, quantizeInt8 } from '../../src/formats/int8.ts'
import { dequantizeNf4, quantizeNf4 } from '../../src/formats/nf4.ts'
import { uploadInt8 } from '../../src/kernels/int8.ts'
import { anyLinear, type LinearWeight, lora, loraLinear } from '../../src/kernels/lora.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { uploadNf4 } from '../../src/kernels/nf4.ts'
import { productTiers, productWork } from '../../src/kernels/product.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const bound = { f32: 2e-6, f16: 2e-3 }
const rounded = (dtype: FloatType, values: ArrayLike<number>) => Float64Array.from(decode(dtype, encode(dtype, values)))

/** Normal values in rows of `columns`, of which every 97th is 60 times larger, as a few channels of real models are. */
function withOutliers(random: Random, rows: number, columns: number): Float32Array {
  return random.normals(rows * columns).map((value, i) => ((i % columns) % 97 === 0 ? 60 * value : value))
}

/** ‖got − want‖ / ‖want‖ */
function relativeError(got: ArrayLike<number>, want: Float64Array): number {
  let [error, size] = [0, 0]
  for (let i = 0; i < want.length; i++) {
    error += (got[i] - want[i]) ** 2
    size += want[i] ** 2
  }
  return Math.sqrt(error / size)
}

/** x (m, k) · weight (n, k)ᵀ in f64. */
function product(x: ArrayLike<number>, weight: ArrayLike<number>, m: number, n: number, k: number): Float64Array {
  return Float64Array.from({ length: m * n }, (_, i) => {
    let sum = 0
    const [a, b] = [Math.floor(i / n) * k, (i % n) * k]
    for (let c = 0; c < k; c++) sum += x[a + c] * weight[b + c]
    return sum
  })
}

/** (rows, columns) turned. */
function turned(values: ArrayLike<number>, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)])
}

type Make = (
  values: Float32Array,
  shape: [number, number],
  dtype: FloatType,
) => { dense: ArrayLike<number>; upload(scope: Scope): LinearWeight<FloatType> }
const weights: Record<string, Make> = {
  dense: (values, shape, dtype) => ({
    dense: rounded(dtype, values),
    upload: (scope) => scope.upload(dtype, shape, values),
  }),
  nf4: (values, shape) => {
    const packed = quantizeNf4(values, shape)
    return { dense: dequantizeNf4(packed), upload: (scope) => uploadNf4(scope, packed) }
  },
  'nf4 nested': (values, shape) => {
    const packed = quantizeNf4(values, shape, { doubleQuant: true })
    return { dense: dequantizeNf4(packed), upload: (scope) => uploadNf4(scope, packed) }
  },
  int8: (values, shape) => {
    const packed = quantizeInt8(values, shape)
    return { dense: dequantizeInt8(packed), upload: (scope) => uploadInt8(scope, packed) }
  },
}
const dtypes = (['f32', 'f16'] as const).filter((dtype) => dtype === 'f32' || gpu.capabilities.f16)
const long = 14_336

for (const dtype of dtypes)
  for (const [name, make] of Object.entries(weights)) {
    // One row takes the GEMV, ten the tiles.
    for (const m of [1, 10])
      test(`${dtype} ${m} × ${long} over ${name}: y`, () =>
        withoutLeaks(async () => {
          using step = gpu.step()
          const n = 6
          const random = new Random(m)
          const packed = make(random.normals(n * long, 0.02), [n, long], dtype)
          const x = withOutliers(random, m, long)
          const y = anyLinear(step, step.upload(dtype, [m, long], x), packed.upload(step))
          const want = product(rounded(dtype, x), packed.dense, m, n, long)
          expect(relativeError(await step.read(y), want)).toBeLessThan(bound[dtype])
        }))

    // Few columns and many take kernels of their own.
    for (const k of [8, 40])
      test(`${dtype} over ${name} of ${long} rows: dx of ${k} columns`, () =>
        withoutLeaks(async () => {
          using step = gpu.step()
          const m = 3
          const random = new Random(2)
          const packed = make(random.normals(long * k, 0.02), [long, k], dtype)
          const x = step.filled(dtype, [m, k], 0)
          x.requiresGrad = true
          const slopes = withOutliers(random, m, long)
          const y = anyLinear(step, x, packed.upload(step))
          const dx = step.backward(y, { seed: step.upload(dtype, [m, long], slopes) }).get(x)
          const want = product(rounded(dtype, slopes), turned(packed.dense, long, k), m, k, long)
          expect(relativeError(await step.read(dx), want)).toBeLessThan(bound[dtype])
        }))
  }

for (const dtype of dtypes) {
  test(`${dtype} low-rank update of ${long} channels: y and dx`, () =>
    withoutLeaks(async () => {
      using step = gpu.step()
      const [m, n, rank] = [9, 8, 8]
      const random = new Random(5)
      const x = withOutliers(random, m, long)
      const a = random.normals(rank * long, 0.01)
      const b = random.normals(n * rank, 0.1)
      const packed = quantizeNf4(random.normals(n * long, 0.02), [n, long])
      const tensor = step.upload(dtype, [m, long], x)
      tensor.requiresGrad = true
      const pair = { a: step.upload(dtype, [rank, long], a), b: step.upload(dtype, [n, rank], b), scale: 2 }
      const slopes = random.normals(m * n)
      const [xs, as, bs, gs] = [x, a, b, slopes].map((values) => rounded(dtype, values))
      const thin = product(xs, as, m, rank, long)
      const update = product(thin, bs, m, n, rank)
      const dense = dequantizeNf4(packed)
      const want = product(xs, dense, m, n, long).map((value, i) => value + 2 * update[i])
      const slope = product(gs, turned(bs, n, rank), m, rank, n)
      const through = product(gs, turned(dense, n, long), m, long, n)
      const dupdate = product(slope, turned(as, rank, long), m, long, rank)
      const dwant = through.map((value, i) => value + 2 * dupdate[i])
      const seed = step.upload(dtype, [m, n], slopes)
      const y = loraLinear(step, tensor, uploadNf4(step, packed), pair)
      expect(relativeError(await step.read(y), want)).toBeLessThan(bound[dtype])
      const dx = step.backward(y, { seed }).get(tensor)
      expect(relativeError(await step.read(dx), dwant)).toBeLessThan(bound[dtype])
      const alone = lora(step, step.filled(dtype, [m, n], 0), tensor, pair)
      const doubled = update.map((value) => 2 * value)
      expect(relativeError(await step.read(alone), doubled)).toBeLessThan(bound[dtype])
    }))
}

const layouts = { NN: {}, NT: { transposeB: true }, TN: { transposeA: true } } as const
// Each layout with each kernel that this adapter has.
for (const dtype of dtypes)
  for (const [layout, options] of Object.entries(dtype === 'f32' ? layouts : { NT: layouts.NT }))
    for (const tier of [...productTiers(gpu, dtype), 'any size'] as const)
      test(`${dtype} product ${layout} of ${long} with ${tier}`, () =>
        withoutLeaks(async () => {
          using step = gpu.step()
          const [m, n] = tier === 'any size' ? [5, 21] : [8, 20]
          const k = tier === 'any size' ? long + 1 : long
          const random = new Random(7)
          const [left, right] = [withOutliers(random, m, k), random.normals(n * k, 0.02)]
          const [a, b] = [rounded(dtype, left), rounded(dtype, right)]
          const want = product(a, b, m, n, k)
          const { transposeA, transposeB } = { transposeA: false, transposeB: false, ...options }
          const operands = [
            transposeA ? step.upload(dtype, [k, m], turned(a, m, k)) : step.upload(dtype, [m, k], a),
            transposeB ? step.upload(dtype, [n, k], b) : step.upload(dtype, [k, n], turned(b, n, k)),
          ]
          const work = productWork(dtype, transposeA, transposeB, m, n)
          if (tier !== 'any size') gpu.tuning.choose(work, tier)
          try {
            const y = matmul(step, operands[0], operands[1], options)
            expect(relativeError(await step.read(y), want)).toBeLessThan(bound[dtype])
          } finally {
            gpu.tuning.choose(work, undefined)
          }
        }))
