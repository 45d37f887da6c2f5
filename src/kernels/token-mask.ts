import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { tokenMask as wgsl } from './wgsl.gen.ts'

/** Words of a mask for `columns` tokens. */
export function maskWords(columns: number): number {
  return Math.ceil(columns / 32)
}

/**
 * Logits of which only some tokens may be chosen: the others get the lowest f32, which no temperature brings back.
 * @param logits f32 or f16 (B, V).
 * @param mask u32 (B, ⌈V / 32⌉): bit i % 32 of word ⌊i / 32⌋ is 1 where token i may be chosen.
 * @returns f32 (B, V). It has no gradient.
 * @throws RangeError when the shapes do not fit.
 */
export function restrictTokens(step: Step, logits: Tensor<FloatType>, mask: Tensor<'u32'>): Tensor<'f32'> {
  const { rows, columns } = rowsAndColumns(logits.shape)
  const words = maskWords(columns)
  expectShape('restrictTokens', logits, 'mask', mask, [rows, words])
  const restricted = step.empty('f32', logits.shape, 'restrictTokens')
  step.run(
    wgsl.forward,
    { logits, mask, restricted },
    { rows, columns, words },
    { workgroups: grid(rows * Math.ceil(columns / 2048)), flops: logits.size },
  )
  return step.node('restrictTokens', restricted, [logits], 'none')
}
