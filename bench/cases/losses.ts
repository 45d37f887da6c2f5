import { headCrossEntropy, headDivergence, headTopKDivergence } from '../../src/kernels/head-loss.ts'
import { crossEntropy, divergence, topKDivergence } from '../../src/kernels/losses.ts'
import { cosine, squaredError } from '../../src/kernels/row-distance.ts'
import {
  cosine64,
  crossEntropy64,
  divergence64,
  squaredError64,
  topKDivergence64,
} from '../../tests/reference/losses.ts'
import { layer } from '../../tests/reference/products.ts'
import { binary, type Case, define, type Maker, rows, width } from './case.ts'

const kinds = ['forwardKl', 'reverseKl', 'jsd', 'skewedKl', 'skewedReverseKl'] as const
/** Its terms have both signs and cancel. */
const cancels = 2e-5

/** What a teacher gives the 16 likeliest tokens of each row: up to 1 in all, the tail included. */
function teacherOf(make: Maker, vocabulary: number, rows: number) {
  const shares = Float32Array.from({ length: rows * 16 }, (_, i) => 0.05 * (1 - (i % 16) / 20))
  return { ids: make.differentIds(vocabulary, rows, 16), probabilities: make.given('f32', [rows, 16], shares) }
}

/** Losses of rows and over the head. */
export const lossesCases: readonly Case[] = [
  binary('squaredError', squaredError, squaredError64),
  binary('cosine', cosine, cosine64, 4e-6),
  define({
    name: `crossEntropy ${rows}×${width}`,
    inputs: (make) => ({ x: make.normal(rows, width), targets: make.ids(width, rows) }),
    op: (step, { x, targets }) => crossEntropy(step, x, targets),
    reference: ({ x, targets }) => crossEntropy64(x, targets.data),
  }),
  ...kinds.map((kind) =>
    define({
      name: `${kind} ${rows}×${width}`,
      tolerance: cancels,
      inputs: (make) => ({ x: make.normal(rows, width), teacher: make.constant(rows, width) }),
      op: (step, { x, teacher }) => divergence(step, x, teacher, { kind }),
      reference: ({ x, teacher }) => divergence64(x, teacher, { kind }),
    }),
  ),
  define({
    name: `topKDivergence 16 of ${width}, ${rows} rows`,
    tolerance: cancels,
    inputs: (make) => ({ x: make.normal(rows, width), ...teacherOf(make, width, rows) }),
    op: (step, { x, ids, probabilities }) => topKDivergence(step, x, ids, probabilities),
    reference: ({ x, ids, probabilities }) => topKDivergence64(x, ids.data, probabilities.data, 16),
  }),
  define({
    name: 'headCrossEntropy 256×256, vocabulary 4096',
    tolerance: 4e-6,
    inputs: (make) => ({
      ...{ hidden: make.normal(256, 256), weight: make.normal(4096, 256) },
      targets: make.ids(4096, 256),
    }),
    op: (step, { hidden, weight, targets }) => headCrossEntropy(step, hidden, weight, targets),
    reference: ({ hidden, weight, targets }) => crossEntropy64(layer(hidden, weight), targets.data),
  }),
  define({
    name: 'headDivergence forwardKl 256×256, vocabulary 4096, teacher 384 wide',
    tolerance: cancels,
    inputs: (make) => ({
      ...{ hidden: make.normal(256, 256), weight: make.normal(4096, 256) },
      ...{ theirHidden: make.constant(256, 384), theirWeight: make.constant(4096, 384) },
    }),
    op: (step, { hidden, weight, theirHidden, theirWeight }) =>
      headDivergence(step, hidden, weight, { hidden: theirHidden, weight: theirWeight }, { kind: 'forwardKl' }),
    reference: ({ hidden, weight, theirHidden, theirWeight }) =>
      divergence64(layer(hidden, weight), layer(theirHidden, theirWeight), { kind: 'forwardKl' }),
  }),
  define({
    name: 'headTopKDivergence 16 of 4096, 256×256',
    tolerance: cancels,
    inputs: (make) => ({
      ...{ hidden: make.normal(256, 256), weight: make.normal(4096, 256) },
      ...teacherOf(make, 4096, 256),
    }),
    op: (step, { hidden, weight, ids, probabilities }) => headTopKDivergence(step, hidden, weight, ids, probabilities),
    reference: ({ hidden, weight, ids, probabilities }) =>
      topKDivergence64(layer(hidden, weight), ids.data, probabilities.data, 16),
  }),
]
