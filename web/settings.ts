import type { SamplingSettings } from './bench.ts'
import { field, h } from './dom.ts'

/** Fields for how answers are sampled, and what they say. */
export function samplingFields(contextLength: number): { element: HTMLElement; read: () => SamplingSettings } {
  const numeric = (value: number, min: number, max: number, step: number | 'any') =>
    h('input', { type: 'number', value, min, max, step, inputmode: 'decimal' })
  const fields = {
    temperature: numeric(0, 0, 10, 0.1),
    topK: numeric(0, 0, 1000, 1),
    topP: numeric(1, 0.01, 1, 0.01),
    maxTokens: numeric(Math.min(64, Math.floor(contextLength / 2)), 1, contextLength, 1),
    seed: numeric(42, 0, 2 ** 31 - 1, 1),
  }
  /** What a field says, within its bounds; what it began with where it says nothing. */
  const value = (input: HTMLInputElement) => {
    const number = input.value.trim() === '' ? Number(input.defaultValue) : Number(input.value)
    return Math.min(Number(input.max), Math.max(Number(input.min), number))
  }
  return {
    element: h(
      'div',
      { class: 'stack tight' },
      h('h2', {}, 'Answers'),
      field('Temperature', fields.temperature, '0 takes the likeliest token; 0.8 surprises.'),
      h('div', { class: 'fields' }, field('Top k', fields.topK), field('Top p', fields.topP)),
      h('div', { class: 'fields' }, field('Most tokens', fields.maxTokens), field('Seed', fields.seed)),
    ),
    read: () => ({
      temperature: value(fields.temperature),
      topK: Math.round(value(fields.topK)),
      topP: value(fields.topP),
      maxTokens: Math.round(value(fields.maxTokens)),
      seed: Math.round(value(fields.seed)),
    }),
  }
}
