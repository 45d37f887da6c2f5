import type { FloatType } from '../core/dtype.ts'
import { embedding } from '../kernels/embedding.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'

/**
 * Some rows of a sequence: the head of a large vocabulary need not run where no token is wanted.
 * @param hidden f32 or f16 (1, T, C).
 * @param rows positions in 0 to T − 1.
 * @returns (1, rows, C) in the dtype of `hidden`.
 */
export function gatherRows(step: Step, hidden: Tensor<FloatType>, rows: readonly number[]): Tensor<FloatType> {
  const [, tokens, width] = hidden.shape
  return embedding(step, step.reshape(hidden, [tokens, width]), step.upload('u32', [1, rows.length], rows))
}
