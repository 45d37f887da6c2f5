import fc from 'fast-check'
import { expect, test } from 'vitest'
import { allocateByVariance, allocateRanks } from '../../src/pca/allocate.ts'

test('ranks follow the dimensions, fit the budget and never exceed what a place needs', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 10, max: 500 })), {
        minLength: 1,
        maxLength: 12,
      }),
      fc.integer({ min: 1, max: 20 }),
      (facts, room) => {
        const places = facts.map(([dimension, cost], i) => ({ name: String(i), dimension, cost }))
        const floor = places.reduce((sum, { cost }) => sum + 4 * cost, 0)
        const ranks = allocateRanks(places, floor * room)
        const spent = places.reduce((sum, { name, cost }) => sum + ranks.get(name)! * cost, 0)
        expect(spent).toBeLessThanOrEqual(floor * room)
        for (const { name, dimension } of places) {
          expect(ranks.get(name)! % 4).toBe(0)
          expect(ranks.get(name)!).toBeLessThanOrEqual(Math.max(4, dimension))
        }
      },
    ),
    { seed: 42 },
  )
  expect(() => allocateRanks([{ name: 'a', dimension: 9, cost: 100 }], 399)).toThrow('the budget is 399')
})

test('by explained variance, the budget goes where most variance is left, as in EVA', () => {
  const places = [
    { name: 'steep', ratios: [0.9, 0.05, 0.02, 0.01, 0.01, 0.01], cost: 10 },
    { name: 'flat', ratios: [0.2, 0.2, 0.2, 0.2, 0.1, 0.1], cost: 10 },
  ]
  const ranks = (budget: number) => Object.fromEntries(allocateByVariance(places, budget, { unit: 1 }))
  expect(ranks(20)).toEqual({ steep: 1, flat: 1 })
  expect(ranks(50)).toEqual({ steep: 1, flat: 4 })
  expect(ranks(80)).toEqual({ steep: 2, flat: 6 })
  expect(ranks(1000)).toEqual({ steep: 6, flat: 6 })
  expect(Object.fromEntries(allocateByVariance(places, 40, { unit: 1, least: 0 }))).toEqual({ steep: 1, flat: 3 })
  expect(() => allocateByVariance(places, 19, { unit: 1 })).toThrow('the budget is 19')
})

test('by explained variance, ranks fit the budget, are units, and nothing affordable of more worth is left out', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 20 }),
          fc.integer({ min: 1, max: 9 }),
        ),
        { minLength: 1, maxLength: 8 },
      ),
      fc.integer({ min: 0, max: 600 }),
      (facts, extra) => {
        const places = facts.map(([ratios, cost], i) => ({ name: `${i}`, ratios: ratios.sort((a, b) => b - a), cost }))
        const budget = 4 * places.reduce((sum, { cost }) => sum + cost, 0) + extra
        const ranks = allocateByVariance(places, budget)
        const spent = places.reduce((sum, { name, cost }) => sum + cost * ranks.get(name)!, 0)
        expect(spent).toBeLessThanOrEqual(budget)
        for (const { name, ratios, cost } of places) {
          const rank = ranks.get(name)!
          expect(rank % 4).toBe(0)
          expect(rank).toBeLessThanOrEqual(Math.max(4, 4 * Math.ceil(ratios.length / 4)))
          // Whoever could still grow within what is left was offered it and took it.
          if (rank < ratios.length) expect(spent + 4 * cost).toBeGreaterThan(budget)
        }
      },
    ),
    { seed: 42, numRuns: 100 },
  )
})
