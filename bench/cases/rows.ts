import { add } from '../../src/kernels/add.ts'
import { addBias } from '../../src/kernels/bias.ts'
import { cast } from '../../src/kernels/copy.ts'
import { gelu, mul, scale, silu, sub, swiglu } from '../../src/kernels/elementwise.ts'
import { rowSum, sum } from '../../src/kernels/reduce.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import { binary, type Case, rows, unary, width } from './case.ts'

/** Maps, and work on rows. */
export const rowsCases: readonly Case[] = [
  binary('add', add),
  binary('mul', mul),
  binary('sub', sub),
  unary('scale', (step, x) => scale(step, x, 2)),
  unary('silu', silu),
  unary('gelu', gelu),
  binary('swiglu', swiglu),
  unary('softmax', softmax),
  unary('sum', sum),
  unary('rowSum', rowSum),
  unary('cast to f16', (step, x) => cast(step, x, 'f16')),
  {
    name: `addBias ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, bias] = [make.normal(rows, width), make.normal(width)]
      return (step) => addBias(step, x, bias)
    },
  },
  {
    name: `rmsNorm ${rows}×${width}`,
    backward: true,
    setup(make) {
      const [x, weight] = [make.normal(rows, width), make.normal(width)]
      return (step) => rmsNorm(step, x, weight)
    },
  },
]
