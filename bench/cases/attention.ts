import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'
import { attention } from '../../src/kernels/attention.ts'
import { attentionDecode, kvAppend } from '../../src/kernels/attention-decode.ts'
import { relationKl } from '../../src/kernels/relation-kl.ts'
import { rope } from '../../src/kernels/rope.ts'
import { attentionOracle, causal, relationKl64, rope64, unpaged } from '../../tests/reference/attention.ts'
import { type Case, define, type Maker } from './case.ts'

/** A full cache of 1024 keys in pages of 16 for each of 4 rows, 2 key heads of 64. */
const cache = (make: Maker) => ({
  k: make.constant(256, 16, 2, 64),
  v: make.constant(256, 16, 2, 64),
  pageTable: make.counting(4, 64),
})

/** Attention, its cache, positions and relations. */
export const attentionCases: readonly Case[] = [
  define({
    name: 'attention 8×128, 8 heads of 64, 2 key heads',
    tolerance: 4e-6,
    inputs: (make) => ({ q: make.normal(8, 128, 8, 64), k: make.normal(8, 128, 2, 64), v: make.normal(8, 128, 2, 64) }),
    op: (step, { q, k, v }) => attention(step, q, k, v),
    reference: ({ q, k, v }) => attentionOracle(q, k, v, causal(128, 128)),
  }),
  define({
    name: 'attention 1×512, 4 heads of 64, a window of 128',
    tolerance: 4e-6,
    inputs: (make) => ({ q: make.normal(1, 512, 4, 64), k: make.normal(1, 512, 4, 64), v: make.normal(1, 512, 4, 64) }),
    op: (step, { q, k, v }) => attention(step, q, k, v, { window: 128 }),
    reference: ({ q, k, v }) => attentionOracle(q, k, v, causal(512, 512, 128)),
  }),
  define({
    name: 'attentionDecode 4×1, 8 heads of 64, 2 key heads, 1024 keys in pages of 16',
    tolerance: 4e-6,
    inputs: (make) => ({
      ...{ q: make.constant(4, 1, 8, 64), ...cache(make) },
      position: make.given('u32', [4], new Uint32Array(4).fill(1023)),
    }),
    op: (step, { q, ...pages }) => attentionDecode(step, q, pages),
    reference: ({ q, k, v }) => attentionOracle(q, unpaged(k, 4), unpaged(v, 4), causal(1, 1024)),
  }),
  define({
    name: 'kvAppend 4×32, 2 key heads of 64',
    tolerance: 0,
    inputs: (make) => ({
      ...{ newK: make.constant(4, 32, 2, 64), newV: make.constant(4, 32, 2, 64) },
      ...{ ...cache(make), position: make.ids(900, 4) },
    }),
    op(step, { newK, newV, ...pages }) {
      kvAppend(step, pages, newK, newV)
      return [pages.k, pages.v]
    },
    reference: ({ newK, newV, k, v, position }) =>
      [
        [k, newK],
        [v, newV],
      ].map(([held, added]) => {
        const y = { shape: held.shape, data: held.data.slice() }
        const [row, token] = [1024 * 128, 32 * 128] // numbers of a row of the cache, and of what a row gains
        for (let b = 0; b < 4; b++)
          y.data.set(added.data.subarray(b * token, (b + 1) * token), b * row + position.data[b] * 128)
        return y
      }),
  }),
  define({
    name: 'relationKl 4×256, 64 features of the student, 32 of the teacher',
    tolerance: 1e-5,
    inputs: (make) => ({ student: make.normal(4, 256, 64), teacher: make.constant(4, 256, 32) }),
    op: (step, { student, teacher }) => relationKl(step, student, teacher),
    reference: ({ student, teacher }) => relationKl64(student, teacher),
  }),
  define({
    name: 'rope 8×256, 8 heads of 64',
    tolerance: 1e-4, // the sine of an angle of 255 in f32
    inputs: (make) => ({
      x: make.normal(8, 256, 8, 64),
      frequencies: make.given('f32', [32], ropeFrequencies(10_000, 64).inverse),
    }),
    op: (step, { x, frequencies }) => rope(step, x, frequencies),
    reference: ({ x, frequencies }) => rope64(x, frequencies.data),
  }),
]
