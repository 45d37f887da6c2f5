import { embedding } from '../../src/kernels/embedding.ts'
import { gather } from '../../src/kernels/gather.ts'
import { chooseTokens } from '../../src/kernels/sampler.ts'
import { argmax, sample, topK } from '../../src/kernels/select.ts'
import { maskWords, restrictTokens } from '../../src/kernels/token-mask.ts'
import { type Case, rows, width } from './case.ts'

/** Embedding, and choosing among tokens. */
export const tokensCases: readonly Case[] = [
  {
    name: 'embedding 4096 of 1024×256',
    backward: true,
    setup(make) {
      const [table, ids] = [make.normal(1024, 256), make.ids(1024, 4096)]
      return (step) => embedding(step, table, ids)
    },
  },
  {
    name: 'gather 8 of 512, 2048 rows',
    backward: true,
    setup(make) {
      const [x, ids] = [make.normal(rows, width), make.ids(width, rows, 8)]
      return (step) => gather(step, x, ids)
    },
  },
  {
    name: 'restrictTokens 4×49152',
    backward: false,
    setup(make) {
      const [logits, mask] = [make.constant(4, 49152), make.ids(2 ** 32, 4, maskWords(49152))]
      return (step) => restrictTokens(step, logits, mask)
    },
  },
  {
    name: `argmax ${rows}×${width}`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => argmax(step, x)
    },
  },
  {
    name: `topK 8 of ${width}, ${rows} rows`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => topK(step, x, 8).values
    },
  },
  {
    name: `sample ${rows}×${width}`,
    backward: false,
    setup(make) {
      const x = make.constant(rows, width)
      return (step) => sample(step, x, { seed: 1 })
    },
  },
  {
    name: 'chooseTokens 4 rows of 32768: temperature, top-k 40, top-p 0.9, penalty',
    backward: false,
    setup(make) {
      const logits = make.constant(4, 32_768)
      const state = make.tokens(4, 256, { temperature: 0.8, topK: 40, topP: 0.9, repetitionPenalty: 1.1 })
      return (step) => chooseTokens(step, logits, state, { penalize: true }).chosen
    },
  },
]
