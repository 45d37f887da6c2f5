// State-space models: the convolution before them and both recurrences, token by token.
import { type Array64, zeros } from './array64.ts'

/** Causal convolution along the tokens of x (B, T, C) with weight (C, taps), the last tap at the token itself. */
export function causalConv64(x: Array64, weight: Array64, bias?: Array64): Array64 {
  const [batch, tokens, channels] = x.shape
  const taps = weight.shape[1]
  const y = zeros(...x.shape)
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < tokens; t++)
      for (let c = 0; c < channels; c++) {
        let sum = bias ? bias.data[c] : 0
        for (let k = 0; k < taps; k++) {
          const from = t - (taps - 1) + k
          if (from >= 0) sum += weight.data[c * taps + k] * x.data[(b * tokens + from) * channels + c]
        }
        y.data[(b * tokens + t) * channels + c] = sum
      }
  return y
}

/** What a recurrence may have beside its inputs. */
export interface RecurrenceExtras {
  readonly skip?: Array64
  /** Added to the step sizes before `softplus`. */
  readonly bias?: Array64
  readonly softplus?: boolean
  /** Before the first token; it is moved on. */
  readonly state?: Float64Array
}

/** S6 as the paper writes it. Inputs: x, delta (B, T, C), a (C, N), b, c (B, T, N). */
export function selectiveScan64(
  [x, delta, a, b, c]: readonly Array64[],
  { skip, bias, softplus = false, state }: RecurrenceExtras = {},
): Array64 {
  const [batch, tokens, channels] = x.shape
  const n = a.shape[1]
  const y = zeros(...x.shape)
  const h = state ?? new Float64Array(batch * channels * n)
  for (let row = 0; row < batch * tokens; row++)
    for (let channel = 0; channel < channels; channel++) {
      const at = row * channels + channel
      const raw = delta.data[at] + (bias ? bias.data[channel] : 0)
      const d = softplus ? Math.log1p(Math.exp(raw)) : raw
      let sum = skip ? skip.data[channel] * x.data[at] : 0
      for (let i = 0; i < n; i++) {
        const place = (Math.floor(row / tokens) * channels + channel) * n + i
        h[place] = Math.exp(d * a.data[channel * n + i]) * h[place] + d * b.data[row * n + i] * x.data[at]
        sum += c.data[row * n + i] * h[place]
      }
      y.data[at] = sum
    }
  return y
}

/** Mamba-2: x (B, T, H, P), dt (B, T, H), a (H), b and c (B, T, G, N). */
export function ssd64(
  [x, dt, a, b, c]: readonly Array64[],
  { skip, bias, softplus = false, state }: RecurrenceExtras = {},
): Array64 {
  const [batch, tokens, heads, width] = x.shape
  const [, , groups, n] = b.shape
  const y = zeros(...x.shape)
  const h = state ?? new Float64Array(batch * heads * width * n)
  for (let row = 0; row < batch * tokens; row++)
    for (let head = 0; head < heads; head++) {
      const raw = dt.data[row * heads + head] + (bias ? bias.data[head] : 0)
      const d = softplus ? Math.log1p(Math.exp(raw)) : raw
      const decay = Math.exp(d * a.data[head])
      const shared = (row * groups + Math.floor(head / (heads / groups))) * n
      for (let i = 0; i < width; i++) {
        const value = x.data[(row * heads + head) * width + i]
        let sum = skip ? skip.data[head] * value : 0
        for (let k = 0; k < n; k++) {
          const place = ((Math.floor(row / tokens) * heads + head) * width + i) * n + k
          h[place] = decay * h[place] + d * value * b.data[shared + k]
          sum += c.data[shared + k] * h[place]
        }
        y.data[(row * heads + head) * width + i] = sum
      }
    }
  return y
}
