import { expect, test } from 'vitest'
import { barChart } from '../../src/report/bar-chart.ts'
import { heatMap } from '../../src/report/heat-map.ts'
import { intervalChart } from '../../src/report/interval-chart.ts'
import { lineChart } from '../../src/report/line-chart.ts'
import { card, dataTable, reportPage } from '../../src/report/page.ts'
import { scaleOf, shortNumber } from '../../src/report/scale.ts'

const text = { title: 'Spectrum <1>', description: 'Variance & more' }

test('scales have round numbers, and logarithmic ones begin at a power of ten', () => {
  const linear = scaleOf({ label: 'x' }, [3, 97])
  expect(linear.ticks).toEqual([0, 50, 100])
  expect([linear.at(0), linear.at(25), linear.at(100)]).toEqual([0, 0.25, 1])
  const log = scaleOf({ label: 'x', scale: 'log' }, [0, 2, 1000])
  expect(log.ticks).toEqual([1, 10, 100, 1000])
  expect(log.at(10)).toBeCloseTo(1 / 3, 12)
  const exact = scaleOf({ label: 'x', from: 0, to: 29 }, [])
  expect(exact.at(29)).toBe(1)
  expect(exact.ticks.at(-1)).toBeLessThanOrEqual(29)
  expect([0, 0.05, 1234, 56789, 1e-7, 2.5e6].map(shortNumber)).toEqual(['0', '0.05', '1230', '57k', '1e-7', '3e6'])
})

test('a chart names itself for readers that do not see it, and escapes what it is told', () => {
  const axes = { x: { label: 'k', scale: 'log' as const }, y: { label: 'λ', scale: 'log' as const } }
  const svg = lineChart({
    ...text,
    ...axes,
    series: [
      {
        name: 'a<b',
        points: [
          [1, 10],
          [10, 1],
          [100, 0],
        ],
      },
    ],
  })
  expect(svg).toContain('role="img"')
  const [, id] = /<title id="([^"]+)-title">Spectrum &lt;1&gt;<\/title>/.exec(svg)!
  expect(svg).toContain(`aria-labelledby="${id}-title ${id}-text"`)
  expect(svg).toContain('a&lt;b')
  // What a logarithm cannot show is left out: two points remain.
  expect(svg.match(/<circle/g)).toHaveLength(2)
  expect(lineChart({ ...text, ...axes, series: [] })).toContain('</svg>')
})

test('bars begin at zero, gaps stay open, and a second series brings a legend', () => {
  const common = { ...text, categories: ['0', '1', '2'], x: { label: 'layer' }, y: { label: 'KL' } }
  const one = barChart({ ...common, series: [{ name: 'only', values: [1, null, 2] }] })
  expect(one.match(/<rect/g)).toHaveLength(2)
  const heights = [...one.matchAll(/<rect[^>]* height="([\d.]+)"/g)].map(([, height]) => Number(height))
  expect(heights[1]).toBeCloseTo(2 * heights[0], 0)
  const two = barChart({ ...common, series: ['a', 'b'].map((name) => ({ name, values: [1, 1, 1] })) })
  expect(two.match(/<rect/g)).toHaveLength(6 + 2)
})

test('intervals are drawn to one scale, and those that hold zero in grey', () => {
  const svg = intervalChart({
    ...{ ...text, categories: ['sure', 'open'], x: { label: '' }, y: { label: 'points' } },
    intervals: [
      { value: 3, lower: 1, upper: 5 },
      { value: 1, lower: -1, upper: 3 },
    ],
  })
  const dots = [...svg.matchAll(/<circle cx="[^"]*" cy="([\d.]+)" r="4.5" class="fill-(s\d) dot"><title>([^<]*)/g)]
  expect(dots.map(([, , colour, words]) => [colour, words])).toEqual([
    ['s1', 'sure: 3, 1 to 5'],
    ['s6', 'open: 1, -1 to 3'],
  ])
  const whiskers = [...svg.matchAll(/y1="([\d.]+)" y2="([\d.]+)" class="line stroke/g)].filter(([, a, b]) => a !== b)
  const [sure, open] = whiskers.map(([, a, b]) => Number(b) - Number(a))
  expect(sure).toBeCloseTo(open, 1)
})

test('a heat map colours its ends, and a diverging one its middle', () => {
  const common = { ...text, rows: ['0'], columns: ['a', 'b', 'c'], rowName: 'layer', columnName: 'head', unit: 'rank' }
  const cells = (svg: string) => [...svg.matchAll(/<rect[^>]*style="fill: ([^"]+)"><title>/g)].map(([, fill]) => fill)
  const plain = cells(heatMap({ ...common, values: [[0, 5, 10]] }))
  expect(plain).toEqual(
    ['0.0', '50.0', '100.0'].map((part) => `color-mix(in oklab, var(--heat-low), var(--heat-high) ${part}%)`),
  )
  const both = cells(heatMap({ ...common, values: [[-4, 0, 4]], colours: 'diverging' }))
  expect(both[0]).toContain('var(--heat-below) 100.0%')
  expect(both[1]).toContain('0.0%')
  expect(heatMap({ ...common, values: [[1, null, 2]] })).toContain('class="empty"')
})

test('a page is one file without scripts or links', () => {
  const page = reportPage({
    ...{ title: 'A & B', subtitle: 'x', figures: [{ name: 'n', value: '3' }] },
    sections: [
      {
        title: 'S',
        text: '<b>',
        body: [card('c', '<svg></svg>'), dataTable(['a', 'b', 'c'], [['x', '1', '2-profile']])],
      },
    ],
  })
  expect(page).toContain('<title>A &amp; B</title>')
  expect(page).toContain('&lt;b&gt;')
  expect(page).toContain('<td class="number">1</td><td>2-profile</td>')
  expect(page).not.toMatch(/<script|<link|src=|url\(|@import/)
})
