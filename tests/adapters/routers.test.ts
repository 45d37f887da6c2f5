import { Matrix, SVD } from 'ml-matrix'
import { expect, test } from 'vitest'
import { Adapter } from '../../src/adapters/adapter.ts'
import { ArrowRouter, arrowPrototypes, topRightSingularVector } from '../../src/adapters/arrow.ts'
import { LinearRouter } from '../../src/adapters/linear-router.ts'
import { largest, truncateAdapter } from '../../src/adapters/truncate.ts'
import { Random } from '../../src/core/random.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { config } from '../bundle/tiny-bundle.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const [n, rank, k] = [24, 4, 16]

/** A product B · A, and its singular value decomposition by ml-matrix. */
function product(seed: number) {
  const random = new Random(seed)
  const [a, b] = [random.normals(rank * k), random.normals(n * rank)]
  const matrix = Matrix.from1DArray(n, rank, Array.from(b)).mmul(Matrix.from1DArray(rank, k, Array.from(a)))
  return { a, b, matrix, svd: new SVD(matrix, { autoTranspose: true }) }
}

test.each([1, 2, 3])('the top right singular vector is that of the whole product, seed %d', (seed) => {
  const { a, b, svd } = product(seed)
  const found = topRightSingularVector(Float64Array.from(a), Float64Array.from(b), rank)!
  const want = svd.rightSingularVectors.getColumn(0)
  const cosine = found.reduce((sum, value, i) => sum + value * want[i], 0)
  expect(Math.abs(cosine)).toBeCloseTo(1, 6)
  expect(topRightSingularVector(Float64Array.from(a), new Float64Array(n * rank), rank)).toBeUndefined()
})

test('a product is cut to its largest singular values', () => {
  const { a, b, matrix, svd } = product(4)
  for (const keep of [1, 2, 3, 4]) {
    const cut = largest(a, b, rank, keep)
    const low = Matrix.from1DArray(n, keep, Array.from(cut.b)).mmul(Matrix.from1DArray(keep, k, Array.from(cut.a)))
    const lost = Matrix.sub(matrix, low).norm('frobenius')
    // Eckart and Young: what is lost is just the smaller singular values.
    const least = Math.hypot(...svd.diagonal.slice(keep, rank))
    expect(lost).toBeCloseTo(least, 3)
  }
})

test('an adapter is cut to a share of its ranks, to nothing as well', () =>
  withoutLeaks(async () => {
    const name = (part: string) => `base_model.model.model.layers.0.self_attn.q_proj.lora_${part}.weight`
    const random = new Random(5)
    const tensors = new Map([
      [name('A'), cpuTensor('F32', [8, 16], random.normals(128))],
      [name('B'), cpuTensor('F32', [16, 8], random.normals(128))],
    ])
    using adapter = Adapter.load(gpu, 'add', config, tensors)
    const half = await truncateAdapter(gpu, adapter, config, 0.5)
    using cut = half.adapter!
    expect(half.meanRank).toBe(4)
    expect(cut.parameters.get(name('A'))!.shape).toEqual([4, 16])
    expect(await truncateAdapter(gpu, adapter, config, 0)).toEqual({ adapter: undefined, meanRank: 0 })
  }))

test('Arrow chooses the adapter that answers to a prompt, and needs no training', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(6), 0.4)
    const prompts = [
      [5, 9, 5, 9],
      [40, 71, 33, 60],
    ]
    // Adapters that answer to just the direction that each prompt's states have.
    const adapters: Adapter[] = []
    for (const ids of prompts) {
      using step = gpu.step()
      const inputs: Promise<ArrayLike<number>>[] = []
      model.hidden(step, step.upload('u32', [1, 4], ids), {
        observe: (name, x) => void (name === '0.attention.input' && inputs.push(step.read(x))),
      })
      const states = await inputs[0]
      const mean = Float32Array.from(
        { length: 16 },
        (_, c) => (states[c] + states[16 + c] + states[32 + c] + states[48 + c]) / 4,
      )
      const a = new Float32Array(4 * 16)
      a.set(mean)
      const b = Float32Array.from({ length: 16 * 4 }, (_, i) => (i % 4 === 0 ? 1 : 0))
      const path = 'base_model.model.model.layers.0.self_attn.q_proj'
      adapters.push(
        Adapter.load(
          gpu,
          `a${adapters.length}`,
          config,
          new Map([
            [`${path}.lora_A.weight`, cpuTensor('F32', [4, 16], a)],
            [`${path}.lora_B.weight`, cpuTensor('F32', [16, 4], b)],
          ]),
        ),
      )
    }
    const prototypes = await Promise.all(adapters.map((adapter) => arrowPrototypes(adapter, 1, model)))
    const router = new ArrowRouter(model, ['first', 'second'], prototypes)
    expect((await router.choose(prompts[0])).capability).toBe('first')
    expect((await router.choose(prompts[1])).capability).toBe('second')
    for (const adapter of adapters) adapter[Symbol.dispose]()
  }))

test('the trained router tells apart what means alone do not', () => {
  const random = new Random(7)
  // Two capabilities with one small difference beside a large direction that says nothing.
  const draw = (capability: string) => {
    const noise = random.normal() * 20
    const state = Float32Array.of(noise, noise * 0.5, (capability === 'b' ? 1 : -1) + 0.1 * random.normal(), 3)
    return { state, capability }
  }
  const examples = Array.from({ length: 80 }, (_, i) => draw(i % 2 === 0 ? 'a' : 'b'))
  const router = LinearRouter.fit(['a', 'b'], examples)
  const unseen = Array.from({ length: 100 }, (_, i) => draw(i % 2 === 0 ? 'a' : 'b'))
  const right = unseen.filter(({ state, capability }) => router.choose(state).capability === capability).length
  expect(right).toBe(100)
  expect(router.choose(unseen[0].state).score).toBeGreaterThan(0.5)
  expect(LinearRouter.fit(['a', 'b'], examples)).toEqual(router)
  expect(() => LinearRouter.fit(['a', 'c'], examples)).toThrow('there is no example of c')
})
