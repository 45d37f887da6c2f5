import type { FloatType } from '../core/dtype.ts'
import { mul } from '../kernels/elementwise.ts'
import { rowSum } from '../kernels/reduce.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import type { Decoder } from '../models/decoder.ts'
import { addHeadSlopes } from '../pca/head-importance.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type Batch, uploadBatch } from '../train/batch.ts'

/**
 * Adds |∂L/∂ξ| of every head, text by text, to `totals`: L is the mean loss of a text's own tokens, ξ a gate on the head.
 * @param totals a row of H numbers for each layer.
 */
export async function addHeadImportance(
  decoder: Decoder,
  batch: Batch,
  totals: readonly Float64Array[],
): Promise<void> {
  const { heads, headSize } = decoder.config
  using step = decoder.gpu.step({ label: 'head importance' })
  const { ids, targets } = uploadBatch(step, batch)
  const shares = Float32Array.from(batch.weights)
  for (let r = 0; r < batch.rows; r++) {
    const own = shares.subarray(r * batch.tokens, (r + 1) * batch.tokens)
    const sum = own.reduce((all, weight) => all + weight, 0)
    for (let t = 0; t < own.length; t++) own[t] /= sum || 1
  }
  const mixed: Tensor<FloatType>[] = []
  const hidden = decoder.hidden(step, ids, {
    observe(name, x) {
      // The weights are frozen: gradients begin at the embedding.
      if (name === 'embedding') x.requiresGrad = true
      if (name.endsWith('attention.mixed')) mixed.push(x)
    },
  })
  const weights = step.upload('f32', [batch.rows, batch.tokens], shares)
  const loss = weightedMean(step, decoder.losses(step, hidden, targets), weights, 1)
  const gradients = step.backward(loss, { retain: mixed })
  const slopes = mixed.map((x) => {
    // dL/dξ of a head is the sum of x · dx over its part of the features, here for each token.
    const product = mul(step, x, gradients.get(x))
    return rowSum(step, step.reshape(product, [batch.rows, batch.tokens, heads, headSize]))
  })
  for (const [layer, slope] of slopes.entries()) addHeadSlopes(totals[layer], await step.read(slope), batch.tokens)
}
