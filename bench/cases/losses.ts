import { headCrossEntropy, headDivergence, headTopKDivergence } from '../../src/kernels/head-loss.ts'
import { crossEntropy, divergence, topKDivergence } from '../../src/kernels/losses.ts'
import { cosine, squaredError } from '../../src/kernels/row-distance.ts'
import { binary, type Case, rows, width } from './case.ts'

/** Losses of rows and over the head. */
export const lossesCases: readonly Case[] = [
  binary('squaredError', squaredError),
  binary('cosine', cosine),
  {
    name: `crossEntropy ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, targets] = [make.normal(rows, width), make.ids(width, rows)]
      return (step) => crossEntropy(step, x, targets)
    },
  },
  ...(['forwardKl', 'reverseKl', 'jsd', 'skewedKl', 'skewedReverseKl'] as const).map(
    (kind): Case => ({
      name: `${kind} ${rows}×${width}`,
      backward: true,
      setup(make) {
        const [x, teacher] = [make.normal(rows, width), make.constant(rows, width)]
        return (step) => divergence(step, x, teacher, { kind })
      },
    }),
  ),
  {
    name: `topKDivergence 16 of ${width}, ${rows} rows`,
    backward: true,
    setup(make) {
      const [x, ids] = [make.normal(rows, width), make.ids(width, rows, 16)]
      const probabilities = make.constant(rows, 16)
      return (step) => topKDivergence(step, x, ids, probabilities)
    },
  },
  {
    name: 'headCrossEntropy 256×256, vocabulary 4096',
    backward: true,
    setup(make) {
      const [hidden, weight, targets] = [make.normal(256, 256), make.normal(4096, 256), make.ids(4096, 256)]
      return (step) => headCrossEntropy(step, hidden, weight, targets)
    },
  },
  {
    name: 'headDivergence forwardKl 256×256, vocabulary 4096, teacher 384 wide',
    backward: true,
    setup(make) {
      const [hidden, weight] = [make.normal(256, 256), make.normal(4096, 256)]
      const teacher = { hidden: make.constant(256, 384), weight: make.constant(4096, 384) }
      return (step) => headDivergence(step, hidden, weight, teacher, { kind: 'forwardKl' })
    },
  },
  {
    name: 'headTopKDivergence 16 of 4096, 256×256',
    backward: true,
    setup(make) {
      const [hidden, weight] = [make.normal(256, 256), make.normal(4096, 256)]
      const [ids, probabilities] = [make.ids(4096, 256, 16), make.positive(256, 16)]
      return (step) => headTopKDivergence(step, hidden, weight, ids, probabilities)
    },
  },
]
