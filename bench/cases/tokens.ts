import { embedding } from '../../src/kernels/embedding.ts'
import { gather } from '../../src/kernels/gather.ts'
import { chooseTokens, samplingSettings } from '../../src/kernels/sampler.ts'
import { argmax, sample, topK } from '../../src/kernels/select.ts'
import { maskWords, restrictTokens } from '../../src/kernels/token-mask.ts'
import { eachRow } from '../../tests/reference/array64.ts'
import { chooseTokens64, chosenLogs64, restrict64, sample64, topK64 } from '../../tests/reference/choice.ts'
import { embedding64, gather64 } from '../../tests/reference/rows.ts'
import { type Case, define, rows, width } from './case.ts'

const sampling = samplingSettings({ temperature: 0.8, topK: 40, topP: 0.9, repetitionPenalty: 1.1 })

/** Embedding, and choosing among tokens. What is chosen or copied is right or wrong: no error passes. */
export const tokensCases: readonly Case[] = [
  define({
    name: 'embedding 4096 of 1024×256',
    inputs: (make) => ({ table: make.normal(1024, 256), ids: make.ids(1024, 4096) }),
    op: (step, { table, ids }) => embedding(step, table, ids),
    reference: ({ table, ids }) => embedding64(table, ids),
  }),
  define({
    name: 'gather 8 of 512, 2048 rows',
    inputs: (make) => ({ x: make.normal(rows, width), ids: make.ids(width, rows, 8) }),
    op: (step, { x, ids }) => gather(step, x, ids),
    reference: ({ x, ids }) => gather64(x, ids.data, 8),
  }),
  define({
    name: 'restrictTokens 4×49152',
    tolerance: 0,
    inputs: (make) => ({ logits: make.constant(4, 49152), mask: make.ids(2 ** 32, 4, maskWords(49152)) }),
    op: (step, { logits, mask }) => restrictTokens(step, logits, mask),
    reference: ({ logits, mask }) => restrict64(logits, mask),
  }),
  define({
    name: `argmax ${rows}×${width}`,
    tolerance: 0,
    inputs: (make) => ({ x: make.constant(rows, width) }),
    op: (step, { x }) => argmax(step, x),
    reference: ({ x }) => eachRow(x, (row) => row.indexOf(row.reduce((a, b) => Math.max(a, b)))),
  }),
  define({
    name: `topK 8 of ${width}, ${rows} rows`,
    tolerance: 0,
    inputs: (make) => ({ x: make.constant(rows, width) }),
    op(step, { x }) {
      const { indices, values } = topK(step, x, 8)
      return [indices, values]
    },
    reference({ x }) {
      const { indices, values } = topK64(x, 8)
      return [indices, values]
    },
  }),
  define({
    name: `sample ${rows}×${width}`,
    tolerance: 0,
    inputs: (make) => ({ x: make.constant(rows, width) }),
    op: (step, { x }) => sample(step, x, { seed: 1 }),
    reference: ({ x }, [made]) => sample64(x, 1, made),
  }),
  define({
    name: 'chooseTokens 4 rows of 32768: temperature, top-k 40, top-p 0.9, penalty',
    tolerance: 1e-5, // of the log-probabilities; a wrong token is far more
    inputs: (make) => ({
      ...{ logits: make.constant(4, 32_768), ids: make.ids(1000, 4, 1), position: make.ids(255, 4) },
      ...{ history: make.ids(1000, 4, 256), seeds: make.ids(2 ** 31, 4) },
      settings: make.given('f32', [4, sampling.length], [sampling, sampling, sampling, sampling].flat()),
    }),
    op(step, { logits, ...state }) {
      const { chosen, logprob } = chooseTokens(step, logits, state, { penalize: true })
      return [chosen, logprob]
    },
    reference({ logits, ...state }, [chosen]) {
      return [chooseTokens64(logits, state, chosen), chosenLogs64(logits, state, chosen)]
    },
  }),
]
