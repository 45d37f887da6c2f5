import { add } from '../../src/kernels/add.ts'
import { addBias } from '../../src/kernels/bias.ts'
import { cast } from '../../src/kernels/copy.ts'
import { gelu, log1p, mul, scale, silu, sub, swiglu } from '../../src/kernels/elementwise.ts'
import { rowSum, sum } from '../../src/kernels/reduce.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import { type Array64, mapped } from '../../tests/reference/array64.ts'
import { gelu64, rmsNorm64, rowSum64, silu64, softmax64, total64 } from '../../tests/reference/rows.ts'
import { binary, type Case, define, rows, unary, width } from './case.ts'

const map =
  (f: (...values: number[]) => number) =>
  (...inputs: Array64[]) =>
    mapped(f, ...inputs)

/** Maps, and work on rows. */
export const rowsCases: readonly Case[] = [
  binary(
    'add',
    add,
    map((x, z) => x + z),
  ),
  binary(
    'mul',
    mul,
    map((x, z) => x * z),
  ),
  binary(
    'sub',
    sub,
    map((x, z) => x - z),
  ),
  unary(
    'scale',
    (step, x) => scale(step, x, 2),
    map((x) => 2 * x),
  ),
  unary('silu', silu, map(silu64)),
  unary('gelu', gelu, map(gelu64)),
  unary(
    'log1p of a square',
    (step, x) => log1p(step, mul(step, x, x)),
    map((x) => Math.log1p(x * x)),
  ),
  binary(
    'swiglu',
    swiglu,
    map((x, z) => silu64(x) * z),
  ),
  unary('softmax', softmax, softmax64),
  unary('sum', sum, total64, 1e-5), // its terms cancel
  unary('rowSum', rowSum, rowSum64),
  unary(
    'cast to f16',
    (step, x) => cast(step, x, 'f16'),
    (x) => x,
    5e-4,
  ), // half a unit in the last place of f16
  define({
    name: `addBias ${rows}×${width}`,
    inputs: (make) => ({ x: make.normal(rows, width), bias: make.normal(width) }),
    op: (step, { x, bias }) => addBias(step, x, bias),
    reference: ({ x, bias }) => mapped((a, b) => a + b, x, bias),
  }),
  define({
    name: `rmsNorm ${rows}×${width}`,
    inputs: (make) => ({ x: make.normal(rows, width), weight: make.normal(width) }),
    op: (step, { x, weight }) => rmsNorm(step, x, weight, { eps: 1e-5 }),
    reference: ({ x, weight }) => rmsNorm64(x, weight, 1e-5),
  }),
]
