import { attention } from '../../src/kernels/attention.ts'
import { attentionDecode, kvAppend } from '../../src/kernels/attention-decode.ts'
import { relationKl } from '../../src/kernels/relation-kl.ts'
import { rope } from '../../src/kernels/rope.ts'
import type { Case } from './case.ts'

/** Attention, its cache, positions and relations. */
export const attentionCases: readonly Case[] = [
  {
    name: 'attention 8×128, 8 heads of 64, 2 key heads',
    backward: true,
    setup(make) {
      const [q, k, v] = [make.normal(8, 128, 8, 64), make.normal(8, 128, 2, 64), make.normal(8, 128, 2, 64)]
      return (step) => attention(step, q, k, v)
    },
  },
  {
    name: 'attention 1×512, 4 heads of 64, a window of 128',
    backward: true,
    setup(make) {
      const [q, k, v] = [make.normal(1, 512, 4, 64), make.normal(1, 512, 4, 64), make.normal(1, 512, 4, 64)]
      return (step) => attention(step, q, k, v, { window: 128 })
    },
  },
  {
    name: 'attentionDecode 4×1, 8 heads of 64, 2 key heads, 1024 keys in pages of 16',
    backward: false,
    setup(make) {
      const [q, cache] = [make.constant(4, 1, 8, 64), make.cache(4, 1024, 16, 2, 64)]
      return (step) => attentionDecode(step, q, cache)
    },
  },
  {
    name: 'kvAppend 4×32, 2 key heads of 64',
    backward: false,
    setup(make) {
      const [k, v] = [make.constant(4, 32, 2, 64), make.constant(4, 32, 2, 64)]
      const cache = { ...make.cache(4, 1024, 16, 2, 64), position: make.ids(900, 4) }
      return (step) => {
        kvAppend(step, cache, k, v)
        return cache.k
      }
    },
  },
  {
    name: 'relationKl 4×256, 64 features of the student, 32 of the teacher',
    backward: true,
    setup(make) {
      const [student, teacher] = [make.normal(4, 256, 64), make.constant(4, 256, 32)]
      return (step) => relationKl(step, student, teacher)
    },
  },
  {
    name: 'rope 8×256, 8 heads of 64',
    backward: true,
    setup(make) {
      const x = make.normal(8, 256, 8, 64)
      const frequencies = make.positive(32)
      return (step) => rope(step, x, frequencies)
    },
  },
]
