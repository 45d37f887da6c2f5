import { argmax, sample } from '../kernels/select.ts'
import type { Decoder, LinearUpdates } from '../models/decoder.ts'
import { gatherRows } from './last-token.ts'

/** How text is continued. */
export interface GenerateOptions {
  readonly updates?: LinearUpdates
  /** Most tokens to make; 64 unless told. */
  readonly maxTokens?: number
  /** 0 takes the likeliest token; 0 unless told. */
  readonly temperature?: number
  /** Seed of the draws; 42 unless told. */
  readonly seed?: number
  readonly signal?: AbortSignal
}

/**
 * Continues a sequence token by token until the model ends it.
 * @param ids the prompt, one or more ids.
 * @yields each new id; the id that ends the answer is not among them.
 * @throws RangeError when prompt and answer together would pass the model's context length.
 */
export async function* generate(
  model: Decoder,
  ids: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<number> {
  const { maxTokens = 64, temperature = 0, seed = 42, updates, signal } = options
  const { contextLength, eosId } = model.config
  if (ids.length === 0) throw new RangeError('Cannot generate from an empty prompt')
  if (ids.length + maxTokens > contextLength)
    throw new RangeError(
      `Cannot generate ${maxTokens} tokens after a prompt of ${ids.length}: the model's context is ${contextLength}. Shorten one of them.`,
    )
  const sequence = [...ids]
  for (let made = 0; made < maxTokens && !signal?.aborted; made++) {
    using step = model.gpu.step({ label: 'generate' })
    const hidden = model.hidden(step, step.upload('u32', [1, sequence.length], sequence), { updates })
    const logits = model.head(step, gatherRows(step, hidden, [sequence.length - 1]))
    const choice =
      temperature === 0 ? argmax(step, logits) : sample(step, logits, { temperature, seed: seed * 65_537 + made })
    const id = (await step.read(choice))[0]
    if (id === eosId) return
    sequence.push(id)
    yield id
  }
}
