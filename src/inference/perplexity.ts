import { InterruptedError } from '../core/errors.ts'
import { type OnProgress, silent } from '../core/progress.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import { notFinite } from './finite.ts'

/** How a text is measured. */
export interface PerplexityOptions {
  /** Tokens of a window; 1,024, or the model's context if that is less, unless told. */
  readonly context?: number
  /** Tokens from one window's beginning to the next one's; the context unless told. Fewer give each token more to go by. */
  readonly stride?: number
  /** Goes in front of every window: the beginning token, where the tokenizer asks for one. */
  readonly bosId?: number
  readonly updates?: LinearUpdates
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

/** What a model makes of a text. */
export interface Perplexity {
  /** exp of the mean loss. */
  readonly perplexity: number
  /** −log probability in nats of each token that was predicted, in the order of the text. */
  readonly losses: Float32Array<ArrayBuffer>
  readonly windows: number
}

/**
 * How well a model predicts a text: windows of `context` tokens, each token counted in the first window that predicts
 * it. The first token of a window is predicted where a beginning token or, with a stride, an earlier window is before it.
 * @param ids the text, two tokens or more.
 * @throws RangeError when there is nothing to predict, a window is longer than the model's context, or the model gives
 *   NaN; InterruptedError.
 *
 * @example
 * const { perplexity } = await measurePerplexity(model, tokenizer.encode(text), { context: 512 })
 */
export async function measurePerplexity(
  model: Decoder,
  ids: readonly number[],
  options: PerplexityOptions = {},
): Promise<Perplexity> {
  const { bosId, updates, onProgress = silent, signal } = options
  const prefix = bosId === undefined ? [] : [bosId]
  const most = model.config.contextLength - prefix.length
  const { context = Math.min(1024, most) } = options
  const { stride = context } = options
  if (!Number.isInteger(context) || context < 2 || context > most)
    throw new RangeError(`Cannot measure windows of ${context} tokens: they must have from 2 to ${most}`)
  if (!Number.isInteger(stride) || stride < 1 || stride > context)
    throw new RangeError(`Cannot move windows of ${context} tokens by ${stride}: it must be from 1 to ${context}`)
  if (ids.length < 2) throw new RangeError(`Cannot measure a text of ${ids.length} tokens: it needs two or more`)
  const losses = new Float32Array(ids.length)
  let counted = 0
  let seen = 0
  let sum = 0
  let windows = 0
  for (let begin = 0; seen < ids.length; begin += stride) {
    if (signal?.aborted) throw new InterruptedError(`Stopped at token ${seen} of ${ids.length}`)
    const end = Math.min(begin + context, ids.length)
    const window = [...prefix, ...ids.slice(begin, end)]
    // A window of one token, at the end of the text, has nothing to predict it from.
    if (window.length > 1) {
      const found = await lossesOf(model, window, updates)
      const from = Math.max(seen, begin + 1 - prefix.length)
      for (const loss of found.subarray(from - begin - 1 + prefix.length)) {
        if (!Number.isFinite(loss)) throw notFinite(model, `measure token ${counted + 1}`)
        losses[counted++] = loss
        sum += loss
      }
      windows++
    }
    seen = end
    const perplexity = Math.exp(sum / counted).toFixed(3)
    onProgress({ task: 'perplexity', done: seen, total: ids.length, unit: 'tokens', figures: { perplexity } })
  }
  return { perplexity: Math.exp(sum / counted), losses: losses.slice(0, counted), windows }
}

/** −log p of every token of a window but the first. */
async function lossesOf(
  model: Decoder,
  window: readonly number[],
  updates: LinearUpdates | undefined,
): Promise<Float32Array> {
  using step = model.gpu.step({ label: 'perplexity' })
  const shape = [1, window.length - 1]
  const found = step.withoutGradients(() =>
    model.losses(
      step,
      model.hidden(step, step.upload('u32', shape, window.slice(0, -1)), { updates }),
      step.upload('u32', shape, window.slice(1)),
    ),
  )
  return step.read(found) as Promise<Float32Array>
}
