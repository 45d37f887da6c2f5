import type { Decoder } from '../models/decoder.ts'

/**
 * The error for logits or losses that are NaN or infinite: what was being done, why that happens, and what to do.
 * @param what `generate` or `measure`, with its object.
 */
export function notFinite({ dtype, config }: Decoder, what: string): RangeError {
  const cure =
    dtype === 'f16'
      ? `the activations of this ${config.family} model pass f16's largest number, 65,504. ` +
        "Load it with activations in f32 (dtype: 'f32', or --precision f32); the weights may stay f16."
      : 'its weights, or those of the adapter on it, hold numbers that are NaN, infinite or far too large. ' +
        'Get the files anew, or leave the adapter away.'
  return new RangeError(`Cannot ${what}: the model gives NaN or infinity; ${cure}`)
}
