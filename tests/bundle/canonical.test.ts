import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { canonicalJson } from '../../src/bundle/canonical-json.ts'
import { parseYaml, writeYaml, type YamlValue } from '../../src/bundle/yaml.ts'

describe('canonical JSON', () => {
  test('the examples of RFC 8785, sections 3.2.2 and 3.2.3', () => {
    const value = {
      numbers: [JSON.parse('333333333.33333329'), 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
      string: '\u20ac$\u000f\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    }
    expect(canonicalJson(value)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    )
    const keys = { '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\ud83d\ude00': 5, '\u0080': 6, '\u00f6': 7 }
    expect(Object.values(JSON.parse(canonicalJson(keys)))).toHaveLength(7)
    expect([...canonicalJson(keys).matchAll(/:(\d)/g)].map(([, digit]) => digit).join('')).toBe('2467153')
  })
  test('what JSON cannot carry is refused', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, [undefined], '\ud800', { '\udc00': 1 }, () => 1, 1n])
      expect(() => canonicalJson(value)).toThrow(TypeError)
  })
  test('equal values give equal text, and the text gives the value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: 'binary', noNullPrototype: true } as object), (value) => {
        const plain = JSON.parse(JSON.stringify(value))
        expect(JSON.parse(canonicalJson(plain))).toEqual(plain)
        const turned = JSON.parse(JSON.stringify(plain), (_, item) =>
          item && typeof item === 'object' && !Array.isArray(item)
            ? Object.fromEntries(Object.entries(item).reverse())
            : item,
        )
        expect(canonicalJson(turned)).toBe(canonicalJson(plain))
      }),
      { seed: 42, numRuns: 200 },
    )
  })
})

describe('YAML', () => {
  const scalar = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(
      'no',
      'yes',
      'null',
      'true',
      '0x10',
      '1e3',
      '-',
      '- a',
      'a: b',
      '#',
      '~',
      'y',
      'NaN',
      '.inf',
      '007',
    ),
    fc.integer(),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e15, max: 1e15 }).filter((value) => !Object.is(value, -0)),
  )
  const name = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/)
  const list = fc.array(scalar, { minLength: 1, maxLength: 4 })
  const inner = fc.dictionary(name, fc.oneof(scalar, list), { minKeys: 1, maxKeys: 4, noNullPrototype: true })
  const outer = fc.dictionary(name, fc.oneof(scalar, list, inner), { minKeys: 1, maxKeys: 4, noNullPrototype: true })

  test('what is written reads back, and the yaml library reads the same', () => {
    fc.assert(
      fc.property(outer, (value) => {
        const text = writeYaml(value as YamlValue)
        expect(parseYaml(text)).toEqual(value)
        expect(parse(text)).toEqual(value)
      }),
      { seed: 42, numRuns: 300 },
    )
  })
  test.each([
    ['a: &x 1', 'no plain word'],
    ['a: *x', 'no plain word'],
    ['a: !!js/function x', 'no plain word'],
    ['a: [1, 2]', 'no plain word'],
    ['a: {b: 1}', 'no plain word'],
    ['a: no', 'no plain word'],
    ['a: 1\na: 2', 'line 2: the key a appears twice'],
    ['a:\n    b: 1', 'expected "key:"'],
    ['a:', 'a has no value'],
    ['a: 1\n  b: 2', 'expected "key:"'],
    ['---\na: 1', 'expected "key:"'],
    ['a:\n\t- b', 'a has no value'],
    ['a:\n  - b\n  c: 1', 'expected "- "'],
    ['a: "x', 'a string is not valid'],
    ['__proto__: 1', 'expected "key:"'],
  ])('%j is refused', (text, reason) => {
    expect(() => parseYaml(text)).toThrow(SyntaxError)
    expect(() => parseYaml(text)).toThrow(reason)
  })
})
