// The work of a decoder's layers, each kernel at the sizes that it meets there, with a few elements of its result in f64.
import type { FloatType } from '../../src/core/dtype.ts'
import { Random } from '../../src/core/random.ts'
import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'
import { adamw } from '../../src/kernels/adamw.ts'
import { add } from '../../src/kernels/add.ts'
import { attention } from '../../src/kernels/attention.ts'
import { swiglu } from '../../src/kernels/elementwise.ts'
import { headCrossEntropy } from '../../src/kernels/head-loss.ts'
import { loraLinear } from '../../src/kernels/lora.ts'
import { linear, matmul } from '../../src/kernels/matmul.ts'
import { nf4Linear } from '../../src/kernels/nf4.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { rope } from '../../src/kernels/rope.ts'
import { selectiveScan } from '../../src/kernels/selective-scan.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import { isSketch } from '../../src/pca/pca-state.ts'
import { StreamingPca } from '../../src/pca/streaming-pca.ts'
import type { Scope } from '../../src/runtime/scope.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { rope64 } from '../../tests/reference/attention.ts'
import { adamw64 } from '../../tests/reference/optimisers.ts'
import { silu64, softmax64 } from '../../tests/reference/rows.ts'
import { selectiveScan64 } from '../../tests/reference/state-space.ts'
import { Drawn, DrawnNf4 } from './drawn.ts'
import { dot, drawnSum, readRow, readRows, Spot, someRows, spotNN, spotNT, spotTN } from './spot.ts'

/** Sizes of a decoder. */
export interface Sizes {
  readonly width: number
  readonly ffnWidth: number
  readonly heads: number
  readonly kvHeads: number
  readonly headSize: number
  readonly vocabulary: number
}

/** What a share is of. */
export type Peak = 'f32' | 'units' | 'gemm'

/** One kernel at one size. */
export interface Work {
  readonly name: string
  readonly shape: string
  readonly dtype: FloatType
  /** What its operations are measured against: multiply-adds, matrix units, or the product of this dtype. */
  readonly peak: Peak
  /** The share to reach. */
  readonly goal?: number
  /** @param held gives back what is not in `scope`. */
  prepare(scope: Scope, held: DisposableStack): Ready
}

/** Work whose inputs are on the GPU. */
export interface Ready {
  /** Records it; gives what {@link check} looks at. */
  run(step: Step): readonly Tensor<FloatType>[]
  /** The part of it whose kernels are not timed: the forward pass of a backward one. */
  before?(step: Step): void
  check(step: Step, made: readonly Tensor<FloatType>[]): Promise<Spot>
}

/** Largest error that passes, over the largest magnitude. */
export const tolerances = { f32: 1e-5, f16: 4e-3 }

const rank = 16
const states = 16
const eps = 1e-5
const mostHeadRows = 4096
const pooled = 512

/** The work of one layer, forward and backward, on `batch` rows of `tokens`. */
export function layerWork(sizes: Sizes, batch: number, tokens: number, dtype: FloatType): Work[] {
  return [...products(sizes, batch * tokens, dtype), ...attentions(sizes, batch, tokens, dtype)].concat(
    onRows(sizes, batch, tokens, dtype),
    others(sizes, batch, tokens, dtype),
  )
}

function products({ width, ffnWidth }: Sizes, rows: number, dtype: FloatType): Work[] {
  const random = new Random(1)
  const peak = dtype === 'f16' ? 'units' : 'f32'
  const goal = dtype === 'f16' ? 0.4 : 0.6
  const shape = `${rows}×${width}×${ffnWidth}`
  const dense = () => ({
    x: new Drawn(random, dtype, [rows, width]),
    g: new Drawn(random, dtype, [rows, ffnWidth]),
    weight: new Drawn(random, dtype, [ffnWidth, width]),
  })
  const put = (scope: Scope, drawn: ReturnType<typeof dense>) => ({
    x: drawn.x.upload(scope),
    g: drawn.g.upload(scope),
    weight: drawn.weight.upload(scope),
  })
  return [
    {
      ...{ name: 'matmul NT: x · Wᵀ', shape, dtype, peak, goal },
      prepare(scope) {
        const drawn = dense()
        const { x, weight } = put(scope, drawn)
        return {
          run: (step) => [matmul(step, x, weight, { transposeB: true })],
          check: (step, [y]) => spotNT(step, y, drawn.x, drawn.weight),
        }
      },
    },
    {
      ...{ name: 'matmul NN: g · W', shape, dtype, peak, goal },
      prepare(scope) {
        const drawn = dense()
        const { g, weight } = put(scope, drawn)
        return {
          run: (step) => [matmul(step, g, weight)],
          check: (step, [y]) => spotNN(step, y, drawn.g, drawn.weight),
        }
      },
    },
    {
      ...{ name: 'matmul TN: gᵀ · x', shape, dtype, peak, goal },
      prepare(scope) {
        const drawn = dense()
        const { g, x } = put(scope, drawn)
        return {
          run: (step) => [matmul(step, g, x, { transposeA: true })],
          check: (step, [y]) => spotTN(step, y, drawn.g, drawn.x),
        }
      },
    },
    {
      ...{ name: `loraLinear, rank ${rank}`, shape, dtype, peak: 'gemm', goal: 0.9 },
      prepare(scope) {
        const drawn = dense()
        const { x, weight } = put(scope, drawn)
        const a = scope.upload(dtype, [rank, width], random.normals(rank * width))
        const b = scope.filled(dtype, [ffnWidth, rank], 0)
        return {
          run: (step) => [loraLinear(step, x, weight, { a, b, scale: 1 })],
          check: (step, [y]) => spotNT(step, y, drawn.x, drawn.weight),
        }
      },
    },
    {
      ...{ name: 'nf4Linear', shape, dtype, peak: 'gemm', goal: 0.85 },
      prepare(scope) {
        const x = new Drawn(random, dtype, [rows, width])
        const weight = new DrawnNf4(random, [ffnWidth, width])
        const [input, packed] = [x.upload(scope), weight.upload(scope)]
        return {
          run: (step) => [nf4Linear(step, input, packed)],
          check: (step, [y]) => spotNT(step, y, x, weight.dense),
        }
      },
    },
    {
      ...{ name: 'nf4Linear, gradient of x', shape, dtype, peak: 'gemm', goal: 0.85 },
      prepare(scope) {
        const [x, g] = [width, ffnWidth].map((columns) => new Drawn(random, dtype, [rows, columns]))
        const weight = new DrawnNf4(random, [ffnWidth, width])
        const [input, seed, packed] = [x.upload(scope), g.upload(scope), weight.upload(scope)]
        input.requiresGrad = true
        return {
          before: (step) => void step.withoutGradients(() => nf4Linear(step, input, packed)),
          run: (step) => [step.backward(nf4Linear(step, input, packed), { seed }).get(input)],
          check: (step, [dx]) => spotNN(step, dx, g, weight.dense),
        }
      },
    },
  ]
}

function attentions({ heads, kvHeads, headSize }: Sizes, batch: number, tokens: number, dtype: FloatType): Work[] {
  const shape = `${batch}×${tokens}, ${heads}/${kvHeads} heads of ${headSize}`
  const rows = batch * tokens
  const share = heads / kvHeads
  const scale = headSize ** -0.5
  const prepare = (scope: Scope) => {
    const random = new Random(2)
    const draw = (count: number) => new Drawn(random, dtype, [rows, count * headSize])
    const known = { q: draw(heads), k: draw(kvHeads), v: draw(kvHeads), seed: draw(heads) }
    const held = {
      q: known.q.upload(scope),
      k: known.k.upload(scope),
      v: known.v.upload(scope),
      seed: known.seed.upload(scope),
    }
    const shaped = (step: Step, x: Tensor<FloatType>, count: number) =>
      step.reshape(x, [batch, tokens, count, headSize])
    const attend = (step: Step) =>
      attention(step, shaped(step, held.q, heads), shaped(step, held.k, kvHeads), shaped(step, held.v, kvHeads))
    const part = (drawn: Drawn, r: number, head: number) =>
      drawn.row(r).subarray(head * headSize, (head + 1) * headSize)
    /** Probabilities of one query of one head over its keys, and what they give. */
    const query = (r: number, head: number) => {
      const first = tokens * Math.floor(r / tokens)
      const keys = Array.from({ length: r - first + 1 }, (_, j) => first + j)
      const group = Math.floor(head / share)
      const scores = keys.map((j) => scale * dot(part(known.q, r, head), part(known.k, j, group)))
      const { data } = softmax64({ shape: [1, scores.length], data: Float64Array.from(scores) })
      const y = new Float64Array(headSize)
      for (const [j, key] of keys.entries()) {
        const v = part(known.v, key, group)
        for (let d = 0; d < headSize; d++) y[d] += data[j] * v[d]
      }
      return { keys, group, probabilities: data, y }
    }
    return { known, held, attend, shaped, part, query }
  }
  const someHeads = [0, heads - 1]
  return [
    {
      ...{ name: 'attention', shape, dtype, peak: 'gemm', goal: 0.35 },
      prepare(scope) {
        const { attend, query } = prepare(scope)
        return {
          run: (step) => [attend(step)],
          async check(step, [y]) {
            const spot = new Spot()
            for (const r of someRows(rows)) {
              const made = await readRow(step, y, r, heads * headSize)
              for (const head of someHeads)
                spot.seeAll(made.slice(head * headSize, (head + 1) * headSize), query(r, head).y)
            }
            return spot
          },
        }
      },
    },
    {
      ...{ name: 'attention, gradients', shape, dtype, peak: 'gemm', goal: 0.35 },
      prepare(scope) {
        const { attend, query, part, known, held, shaped } = prepare(scope)
        const inputs = [held.q, held.k, held.v]
        for (const input of inputs) input.requiresGrad = true
        return {
          before: (step) => void step.withoutGradients(() => attend(step)),
          run(step) {
            const gradients = step.backward(attend(step), { seed: shaped(step, held.seed, heads) })
            return inputs.map((input) => gradients.get(input))
          },
          async check(step, [dq]) {
            // dk and dv sum over all queries behind a key: those of the bench's small cases are checked whole.
            const spot = new Spot()
            for (const r of someRows(rows)) {
              const made = await readRow(step, dq, r, heads * headSize)
              for (const head of someHeads) {
                const { keys, group, probabilities, y } = query(r, head)
                const dy = part(known.seed, r, head)
                const mean = dot(dy, y)
                const want = new Float64Array(headSize)
                for (const [j, key] of keys.entries()) {
                  const ds = scale * probabilities[j] * (dot(dy, part(known.v, key, group)) - mean)
                  const k = part(known.k, key, group)
                  for (let d = 0; d < headSize; d++) want[d] += ds * k[d]
                }
                spot.seeAll(made.slice(head * headSize, (head + 1) * headSize), want)
              }
            }
            return spot
          },
        }
      },
    },
  ]
}

/** Work that only moves memory. */
function onRows(sizes: Sizes, batch: number, tokens: number, dtype: FloatType): Work[] {
  const { width, ffnWidth, heads, headSize } = sizes
  const rows = batch * tokens
  const common = { dtype, peak: 'f32' as const, goal: 0.8 }
  const drawn = (columns: number, count: number) => {
    const random = new Random(3)
    return Array.from({ length: count }, () => new Drawn(random, dtype, [rows, columns]))
  }
  /** A map whose rows are known from those of its inputs. */
  const perRow = (
    name: string,
    columns: number,
    count: number,
    op: (step: Step, inputs: readonly Tensor<FloatType>[]) => Tensor<FloatType>,
    want: (inputs: readonly Float64Array[]) => ArrayLike<number>,
  ): Work => ({
    ...{ ...common, name, shape: `${rows}×${columns}` },
    prepare(scope) {
      const known = drawn(columns, count)
      const inputs = known.map((x) => x.upload(scope))
      return {
        run: (step) => [op(step, inputs)],
        async check(step, [y]) {
          const spot = new Spot()
          for (const r of someRows(rows)) spot.seeAll(await readRow(step, y, r), want(known.map((x) => x.row(r))))
          return spot
        },
      }
    },
  })
  /** Its gradients, where they too are known row by row; the last input is what flows in. */
  const gradients = (
    name: string,
    columns: number,
    count: number,
    op: (step: Step, inputs: readonly Tensor<FloatType>[]) => Tensor<FloatType>,
    want: (inputs: readonly Float64Array[]) => readonly ArrayLike<number>[],
  ): Work => ({
    ...{ ...common, name: `${name}, gradients`, shape: `${rows}×${columns}` },
    prepare(scope) {
      const known = drawn(columns, count + 1)
      const tensors = known.map((x) => x.upload(scope))
      const [inputs, seed] = [tensors.slice(0, count), tensors[count]]
      for (const input of inputs) input.requiresGrad = true
      return {
        before: (step) => void step.withoutGradients(() => op(step, inputs)),
        run(step) {
          const found = step.backward(op(step, inputs), { seed })
          return inputs.map((input) => found.get(input))
        },
        async check(step, made) {
          const spot = new Spot()
          for (const r of someRows(rows)) {
            const rowsWanted = want(known.map((x) => x.row(r)))
            for (const [i, y] of made.entries()) spot.seeAll(await readRow(step, y, r), rowsWanted[i])
          }
          return spot
        },
      }
    },
  })
  const gainOf = (step: Step) => step.filled(dtype, [width], 1)
  const normed = (x: Float64Array) => {
    const factor = 1 / Math.sqrt(dot(x, x) / x.length + eps)
    return { factor, y: x.map((value) => factor * value) }
  }
  return [
    perRow(
      'rmsNorm',
      width,
      1,
      (step, [x]) => rmsNorm(step, x, gainOf(step), { eps }),
      ([x]) => normed(x).y,
    ),
    gradients(
      'rmsNorm',
      width,
      1,
      (step, [x]) => rmsNorm(step, x, gainOf(step), { eps }),
      ([x, dy]) => {
        const { factor, y } = normed(x)
        const along = dot(dy, y) / x.length
        return [x.map((_, i) => factor * (dy[i] - along * y[i]))]
      },
    ),
    perRow(
      'swiglu',
      ffnWidth,
      2,
      (step, [gate, value]) => swiglu(step, gate, value),
      ([gate, value]) => gate.map((z, i) => silu64(z) * value[i]),
    ),
    gradients(
      'swiglu',
      ffnWidth,
      2,
      (step, [gate, value]) => swiglu(step, gate, value),
      ([gate, value, dy]) => {
        const slope = (z: number) => (1 + z * (1 - 1 / (1 + Math.exp(-z)))) / (1 + Math.exp(-z))
        return [gate.map((z, i) => dy[i] * value[i] * slope(z)), gate.map((z, i) => dy[i] * silu64(z))]
      },
    ),
    perRow(
      'add',
      width,
      2,
      (step, [x, z]) => add(step, x, z),
      ([x, z]) => x.map((value, i) => value + z[i]),
    ),
    perRow(
      'softmax',
      width,
      1,
      (step, [x]) => softmax(step, x),
      ([x]) => softmax64({ shape: [1, x.length], data: x }).data,
    ),
    {
      ...{ ...common, name: 'rope', shape: `${batch}×${tokens}, ${heads} heads of ${headSize}` },
      prepare(scope) {
        const [known] = drawn(heads * headSize, 1)
        const x = known.upload(scope)
        const { inverse } = ropeFrequencies(10_000, headSize)
        const frequencies = scope.upload('f32', [headSize / 2], inverse)
        const shape = [batch, tokens, heads, headSize]
        return {
          run: (step) => [rope(step, step.reshape(x, shape), frequencies)],
          async check(step, [y]) {
            // Positions near the start: the sine of a large angle in f32 is another question.
            const few = Math.min(4, tokens)
            const data = Float64Array.from(Array.from({ length: few }, (_, t) => [...known.row(t)]).flat())
            const spot = new Spot()
            spot.seeAll(
              await readRows(step, y, [0, few], heads * headSize),
              rope64({ shape: [1, few, heads, headSize], data }, inverse).data,
            )
            return spot
          },
        }
      },
    },
  ]
}

function others(sizes: Sizes, batch: number, tokens: number, dtype: FloatType): Work[] {
  const { width, ffnWidth, vocabulary } = sizes
  const scan = (scope: Scope) => {
    const random = new Random(4)
    const rows = batch * tokens
    const known = {
      x: new Drawn(random, dtype, [rows, width]),
      delta: new Drawn(random, dtype, [rows, width], 0.3),
      b: new Drawn(random, dtype, [rows, states]),
      c: new Drawn(random, dtype, [rows, states]),
      dy: new Drawn(random, dtype, [rows, width]),
    }
    const [x, delta, b, c, dy] = Object.values(known).map((drawn) => drawn.upload(scope))
    const rates = Float64Array.from({ length: width * states }, (_, i) => -1 - (i % states) / 16)
    const a = scope.upload(dtype, [width, states], rates)
    const run = (step: Step) => {
      const shaped = (t: Tensor<FloatType>, columns: number) => step.reshape(t, [batch, tokens, columns])
      return selectiveScan(step, shaped(x, width), shaped(delta, width), a, shaped(b, states), shaped(c, states), {
        softplus: true,
      })
    }
    return { known, rates, held: { x, delta, b, c }, run, dy }
  }
  const softplus = (value: number) => Math.log1p(Math.exp(value))
  const headRows = Math.min(batch * tokens, mostHeadRows)
  const work: Work[] = [
    {
      ...{ name: 'headCrossEntropy and its gradient', dtype, peak: 'gemm', goal: 0.85 },
      shape: `${headRows}×${width}, vocabulary ${vocabulary}`,
      prepare(scope) {
        const random = new Random(5)
        const hidden = new Drawn(random, dtype, [headRows, width])
        const weight = new Drawn(random, dtype, [vocabulary, width], 2 / Math.sqrt(width))
        const ids = Uint32Array.from({ length: headRows }, () => random.integer(vocabulary))
        const [x, head] = [hidden.upload(scope), weight.upload(scope)]
        const targets = scope.upload('u32', [headRows], ids)
        const seed = scope.filled('f32', [headRows], 1)
        x.requiresGrad = true
        return {
          run(step) {
            const losses = headCrossEntropy(step, x, head, targets)
            return [losses, step.backward(losses, { seed }).get(x)]
          },
          async check(step, [losses, dx]) {
            const spot = new Spot()
            const made = await step.read(losses)
            for (const r of someRows(headRows)) {
              const logits = weight.few.map((row) => dot(hidden.row(r), row))
              const largest = Math.max(...logits)
              let total = 0
              for (const id of weight.ids) total += Math.exp(logits[id] - largest)
              const all = largest + Math.log(total)
              spot.see(made[r], all - logits[weight.ids[ids[r]]])
              const shares = Float64Array.from(weight.ids, (id) => Math.exp(logits[id] - all))
              shares[ids[r]] -= 1
              spot.seeAll(await readRow(step, dx, r), drawnSum(weight, shares))
            }
            return spot
          },
        }
      },
    },
    {
      ...{ name: 'selectiveScan, 16 states', shape: `${batch}×${tokens}×${width}`, dtype, peak: 'f32', goal: 0.65 },
      prepare(scope) {
        const { known, rates, run } = scan(scope)
        return {
          run: (step) => [run(step)],
          async check(step, [y]) {
            // One channel of the first tokens, which need no others.
            const few = Math.min(128, tokens)
            const made = await readRows(step, y, [0, few], width)
            const spot = new Spot()
            for (const channel of [0, width - 1]) {
              const column = (drawn: Drawn) => ({
                shape: [1, few, 1],
                data: Float64Array.from({ length: few }, (_, t) => drawn.row(t)[channel]),
              })
              const all = (drawn: Drawn) => ({
                shape: [1, few, states],
                data: Float64Array.from(Array.from({ length: few }, (_, t) => [...drawn.row(t)]).flat()),
              })
              const a = { shape: [1, states], data: rates.subarray(channel * states, (channel + 1) * states) }
              const want = selectiveScan64([column(known.x), column(known.delta), a, all(known.b), all(known.c)], {
                softplus: true,
              })
              for (let t = 0; t < few; t++) spot.see(made[t * width + channel], want.data[t])
            }
            return spot
          },
        }
      },
    },
    {
      ...{ name: 'selectiveScan, gradients', shape: `${batch}×${tokens}×${width}`, dtype, peak: 'f32', goal: 0.65 },
      prepare(scope) {
        const { known, held, run, dy } = scan(scope)
        for (const input of Object.values(held)) input.requiresGrad = true
        return {
          before: (step) => void step.withoutGradients(() => run(step)),
          run(step) {
            const seed = step.reshape(dy, [batch, tokens, width])
            return [step.backward(run(step), { seed }).get(held.x)]
          },
          async check(step, [dx]) {
            // Behind the last token nothing flows back through the states; the small cases are checked whole.
            const last = tokens - 1
            const made = await readRow(step, dx, last)
            const along = dot(known.b.row(last), known.c.row(last))
            const spot = new Spot()
            for (let channel = 0; channel < width; channel++)
              spot.see(made[channel], known.dy.row(last)[channel] * softplus(known.delta.row(last)[channel]) * along)
            return spot
          },
        }
      },
    },
  ]
  if (dtype === 'f16') return work
  return [
    ...work,
    {
      ...{ name: 'adamw', shape: `${ffnWidth}×${width}`, dtype, peak: 'f32', goal: 0.8 },
      prepare(scope) {
        const random = new Random(6)
        const known = Array.from({ length: 3 }, () => new Drawn(random, 'f32', [ffnWidth, width]))
        const [weight, gradient, m] = known.map((drawn) => drawn.upload(scope))
        const v = scope.filled('f32', [ffnWidth, width], 1)
        const settings = { lr: 1e-2, t: 10 }
        return {
          run(step) {
            adamw(step, [{ weight, gradient, m, v, decay: 0.01 }], { rates: settings })
            return [weight]
          },
          async check(step, [moved]) {
            const spot = new Spot()
            for (const r of someRows(ffnWidth)) {
              const [w, g, first] = known.map((drawn) => drawn.row(r).slice())
              adamw64({ weight: w, m: first, v: new Float64Array(width).fill(1) }, g, {
                ...settings,
                ...{ decay: 0.01, clip: Number.POSITIVE_INFINITY },
              })
              spot.seeAll(await readRow(step, moved, r), w)
            }
            return spot
          },
        }
      },
    },
    {
      ...{ name: 'StreamingPca.update', shape: `${pooled}×${width}`, dtype, peak: 'gemm', goal: 0.7 },
      prepare(scope, held) {
        const x = new Drawn(new Random(7), 'f32', [pooled, width])
        const rows = x.upload(scope)
        const ones = scope.filled('f32', [pooled], 1)
        const pca = held.use(new StreamingPca(scope.gpu, width, { method: 'covariance' }))
        return {
          run(step) {
            pca.update(step, rows, ones, pooled)
            return []
          },
          async check() {
            const state = await pca.state()
            if (isSketch(state)) throw new Error('A covariance was asked for')
            const mean = drawnSum(x, new Float64Array(pooled).fill(1 / pooled))
            const spot = new Spot()
            for (const i of [0, width - 1]) {
              const factors = Float64Array.from({ length: pooled }, (_, r) => x.row(r)[i] - mean[i])
              spot.seeAll(state.scatter.subarray(i * width, (i + 1) * width), drawnSum(x, factors))
            }
            return spot
          },
        }
      },
    },
  ]
}

/** Products of so few rows that the bytes of the weight are what they cost. */
export function decodeWork({ width, ffnWidth, vocabulary }: Sizes, f16: boolean): Work[] {
  const random = new Random(8)
  const common = { dtype: 'f32' as const, peak: 'f32' as const }
  const over = (rows: number, n: number, storage: 'f16' | 'nf4'): Work => ({
    ...{ ...common, name: `${storage === 'nf4' ? 'nf4Linear' : 'linear over f16'}, few rows`, goal: 0.65 },
    shape: `${rows}×${width}×${n}`,
    prepare(scope) {
      const x = new Drawn(random, 'f32', [rows, width])
      const input = x.upload(scope)
      if (storage === 'nf4') {
        const weight = new DrawnNf4(random, [n, width])
        const packed = weight.upload(scope)
        return {
          run: (step) => [nf4Linear(step, input, packed)],
          check: (step, [y]) => spotNT(step, y, x, weight.dense),
        }
      }
      const weight = new Drawn(random, 'f16', [n, width])
      const dense = weight.upload(scope)
      return {
        run: (step) => [linear(step, input, dense)],
        check: (step, [y]) => spotNT(step, y, x, weight),
      }
    },
  })
  return [1, 4].flatMap((rows) => [
    over(rows, ffnWidth, 'nf4'),
    ...(f16 ? [over(rows, ffnWidth, 'f16'), over(rows, vocabulary, 'f16')] : []),
  ])
}
