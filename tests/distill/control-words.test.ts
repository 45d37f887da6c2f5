import { expect, test } from 'vitest'
import { anchorsSay, controlLines } from '../../src/distill/control-words.ts'

const score = (gain: number, half: number) => {
  return { ...{ score: 0.9, ratio: 0.95, bitsPerToken: 1 }, gain, lower: gain - half, upper: gain + half }
}

test('what anchors brought is said for each capability with its interval, whatever it is', () => {
  const controls = { 'no-anchors': { add: score(0.02, 0.01), code: score(-0.03, 0.01), prose: score(0, 0.004) } }
  expect(anchorsSay({ controls })).toBe(
    'Anchors on are better on add, worse on code, not told apart from anchors off on prose. On − off, at equal budget: ' +
      'add +2.00 points (+1.00 to +3.00), code −3.00 points (−4.00 to −2.00), prose +0.00 points (−0.40 to +0.40).',
  )
  expect(controlLines({ controls })).toEqual([
    'Over no-anchors: add +2.00 points (+1.00 to +3.00), code −3.00 points (−4.00 to −2.00), prose +0.00 points (−0.40 to +0.40)',
  ])
  expect(anchorsSay({ controls: {} })).toBeUndefined()
})
