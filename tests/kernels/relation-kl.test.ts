import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { scale } from '../../src/kernels/elementwise.ts'
import { divergence } from '../../src/kernels/losses.ts'
import { matmul } from '../../src/kernels/matmul.ts'
import { type RelationOptions, relationKl } from '../../src/kernels/relation-kl.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { checkOp, expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { relationKl64 } from '../reference/attention.ts'

function check(name: string, options: RelationOptions, shapes: number[][][]): void {
  checkOp(name, {
    op: (step, student, teacher) => relationKl(step, student, teacher, options),
    reference: (student, teacher) => relationKl64(student, teacher, options),
    shapes,
    values: (random, shape) =>
      random.normals(
        shape.reduce((a, b) => a * b),
        0.7,
      ),
    tolerance: 1e-5,
    gradients: [0],
  })
}

check('relationKl', {}, [
  [
    [2, 5, 8],
    [2, 5, 12],
  ],
  [
    [1, 1, 4],
    [1, 1, 4],
  ],
  [
    [1, 71, 8],
    [1, 71, 4],
  ],
  [
    [1, 9, 80],
    [1, 9, 24],
  ],
])
check('relationKl, three heads, causal', { heads: 3, causal: true, scale: 0.3, teacherScale: 0.9 }, [
  [
    [2, 11, 24],
    [2, 11, 12],
  ],
  [
    [1, 67, 12],
    [1, 67, 24],
  ],
])

test('equals the composed ops, with their gradient', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const random = new Random(11)
    const student = step.upload('f32', [2, 37, 16], random.normals(2 * 37 * 16))
    const teacher = step.upload('f32', [2, 37, 8], random.normals(2 * 37 * 8))
    const seed = step.upload('f32', [2, 1, 37], random.normals(74))
    student.requiresGrad = true
    const relations = (x: Tensor<'f32'>) => scale(step, matmul(step, x, x, { transposeB: true }), 0.25)
    const want = divergence(step, relations(student), relations(teacher))
    const wantGradient = step.backward(want, { seed: step.reshape(seed, [2, 37]) }).get(student)
    const got = relationKl(step, student, teacher, { scale: 0.25, teacherScale: 0.25 })
    const gradient = step.backward(got, { seed }).get(student)
    expectClose('loss', await step.read(got), await step.read(want), 4e-6)
    expectClose('gradient', await step.read(gradient), await step.read(wantGradient), 4e-6)
  }))

test('equal relations have no loss and no gradient', async () => {
  using step = gpu.step()
  const values = new Random(2).normals(3 * 8)
  const student = step.upload('f32', [1, 3, 8], values)
  student.requiresGrad = true
  const loss = relationKl(step, student, step.upload('f32', [1, 3, 8], values))
  const gradient = step.backward(loss, { seed: step.filled('f32', [1, 1, 3], 1) }).get(student)
  expect(Math.max(...(await step.read(loss)).map(Math.abs))).toBeLessThan(1e-6)
  expect(Math.max(...(await step.read(gradient)).map(Math.abs))).toBeLessThan(1e-6)
})

test('what does not fit is refused', () => {
  using step = gpu.step()
  const zero = (...shape: number[]) => step.filled('f32', shape, 0)
  expect(() => relationKl(step, zero(1, 3, 8), zero(1, 4, 8))).toThrow(
    'Cannot relationKl x [1,3,8]: teacher must be [1,3,8], got [1,4,8]',
  )
  expect(() => relationKl(step, zero(1, 3, 8), zero(1, 3, 6))).toThrow('6 features of the teacher do not make 1 heads')
  expect(() => relationKl(step, zero(1, 3, 8), zero(1, 3, 8), { heads: 3 })).toThrow('8 features of the student')
})
