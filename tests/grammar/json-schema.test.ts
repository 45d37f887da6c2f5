import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { Automaton } from '../../src/grammar/automaton.ts'
import { Constraint } from '../../src/grammar/constraint.ts'
import { choiceGrammar, jsonGrammar } from '../../src/grammar/json-schema.ts'
import type { Rule } from '../../src/grammar/piece.ts'
import { Vocabulary } from '../../src/grammar/vocabulary.ts'

const bytes = new TextEncoder()
const ajv = new Ajv2020({ strict: false })

/** Whether the whole text follows the grammar. */
function follows(grammar: Rule, text: string): boolean {
  const automaton = new Automaton(grammar)
  let state = automaton.start
  for (const value of bytes.encode(text)) {
    state = automaton.step(state, value)
    if (state < 0) return false
  }
  return automaton.accepts(state)
}

/** A vocabulary of all bytes, and of what JSON is often made of; token 0 ends a text. */
const pieces = [
  '{"',
  '":',
  '": ',
  '",',
  '", "',
  '"}',
  '}}',
  '[]',
  '{}',
  '],',
  'true',
  'null',
  '1',
  '23',
  '-',
  '0.',
  'é',
  '😀',
  'name',
  '\\n',
]
const tokens = [
  undefined,
  ...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)),
  ...pieces.map((text) => bytes.encode(text)),
]
const vocabulary = new Vocabulary(tokens)

/** A text whose every token is drawn at random from those that are allowed. */
function drawn(constraint: Constraint, random: Random, most: number): { text: string; done: boolean } {
  const text = constraint.begin()
  const made: number[] = []
  for (let i = 0; i < most && !text.isDone(); i++) {
    const mask = text.mask()
    const allowed = tokens.flatMap((_, id) => ((mask[id >> 5] >>> (id & 31)) & 1 ? [id] : []))
    const id = allowed[random.integer(allowed.length)]
    text.take(id)
    made.push(...(tokens[id] ?? []))
  }
  return { text: new TextDecoder('utf8', { fatal: text.isDone() }).decode(Uint8Array.from(made)), done: text.isDone() }
}

const names = fc.constantFrom('a', 'b', 'name', 'né', 'x"y', 'n')
const leaf: fc.Arbitrary<object | boolean> = fc.oneof(
  fc.constantFrom({ type: 'boolean' }, { type: 'null' }, { type: 'number' }, { type: 'integer' }, { type: 'string' }),
  fc
    .tuple(fc.integer({ min: -300, max: 300 }), fc.integer({ min: 0, max: 500 }))
    .chain(([low, span]) =>
      fc.constantFrom(
        { type: 'integer', minimum: low, maximum: low + span },
        { type: 'number', minimum: low, maximum: low + span },
        { type: 'number', exclusiveMinimum: low, exclusiveMaximum: low + span + 1 },
        { type: 'number', exclusiveMaximum: low },
        { type: 'integer', minimum: low + 0.5 },
      ),
    ),
  fc
    .tuple(fc.nat(3), fc.nat(3))
    .map(([least, more]) => ({ type: 'string', minLength: least, maxLength: least + more })),
  fc
    .constantFrom('^[a-c]{2,4}$', '^(\\d{3}|x+)-\\w$', 'é|"', '^[^"\\\\]?\\\\$', '^\\u{1F600}.$')
    .map((pattern) => ({ type: 'string', pattern })),
  fc
    .uniqueArray(fc.jsonValue({ maxDepth: 1 }), {
      minLength: 1,
      maxLength: 3,
      selector: (value) => JSON.stringify(value),
    })
    .map((values) => ({ enum: values })),
  fc.constant(true),
)
const schemas: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  schema: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    fc
      .record({
        names: fc.uniqueArray(names, { maxLength: 4 }),
        values: fc.array(tie('schema'), { minLength: 4, maxLength: 4 }),
        required: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
        additional: fc.oneof(fc.constant(undefined), fc.boolean(), tie('schema')),
      })
      .map(({ names, values, required, additional }) => ({
        type: 'object',
        properties: Object.fromEntries(names.map((name, i) => [name, values[i]])),
        required: names.filter((_, i) => required[i]),
        ...(additional === undefined ? {} : { additionalProperties: additional }),
      })),
    fc
      .record({
        items: tie('schema'),
        least: fc.nat(2),
        more: fc.nat(2),
        prefix: fc.array(tie('schema'), { maxLength: 2 }),
      })
      .map(({ items, least, more, prefix }) => ({
        ...{ type: 'array', items, minItems: least, maxItems: least + more },
        ...(prefix.length > 0 ? { prefixItems: prefix } : {}),
      })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.constant({ $ref: '#/$defs/tree' }),
  ),
})).schema
const defs = {
  tree: {
    type: 'object',
    properties: { value: { type: 'integer' }, next: { anyOf: [{ $ref: '#/$defs/tree' }, { type: 'null' }] } },
    required: ['next'],
  },
}

test('whatever is drawn parses and validates, or is still going on', () => {
  let finished = 0
  fc.assert(
    fc.property(schemas, fc.integer(), (schema, seed) => {
      const root = { $defs: defs, anyOf: [schema] }
      const constraint = new Constraint(jsonGrammar(root), vocabulary, tokens.length, [0])
      const validate = ajv.compile(root)
      const random = new Random(seed >>> 0)
      for (let i = 0; i < 3; i++) {
        const { text, done } = drawn(constraint, random, 300)
        if (!done) continue
        finished++
        if (!validate(JSON.parse(text))) throw new Error(`${text}: ${ajv.errorsText(validate.errors)}`)
      }
    }),
    { seed: 42, numRuns: 150 },
  )
  expect(finished).toBeGreaterThan(300)
})

const cases: [schema: unknown, texts: string[], others: string[]][] = [
  [
    { type: 'integer', minimum: -12, maximum: 205 },
    ['0', '-12', '-9', '9', '10', '99', '205', '-1'],
    ['-0', '-13', '206', '007', '1.0', '', '-'],
  ],
  [
    { type: 'number', minimum: 0, maximum: 1 },
    ['0', '1', '0.5', '0.123456', '1.000'],
    ['1.01', '-0.1', '2', '1e0', '.5', '0.'],
  ],
  [
    { type: 'number', exclusiveMinimum: -1, exclusiveMaximum: 0 },
    ['-0.5', '-0.0001'],
    ['0', '-0', '-0.0', '-1', '-1.5'],
  ],
  [{ type: 'number' }, ['-1.5e+10', '0', '1E5', '-0.25'], ['01', '1.', '1e', '+1', '1e999']],
  [
    { type: 'string', minLength: 1, maxLength: 2 },
    ['"a"', '"é😀"', '"\\u00e9\\n"'],
    ['""', '"abc"', '"\\ud83d"', '"\n"', '"\\u00e"'],
  ],
  [{ type: 'string', pattern: '^\\d{3}-[a-c]+$' }, ['"123-abc"'], ['"12-a"', '"123-"', '"123-d"', '"123-a "']],
  [{ type: 'string', pattern: '"' }, ['"\\""', '"a\\"b"'], ['"a"', '"""']],
  [{ enum: ['a"b', 1, null, { x: [1] }] }, ['"a\\"b"', '1', 'null', '{"x":[1]}'], ['"a"', '2', '{"x": [1]}']],
  [
    {
      type: 'object',
      properties: { a: { type: 'null' }, b: { type: 'null' }, c: { type: 'null' } },
      required: ['b'],
      additionalProperties: false,
    },
    ['{"b":null}', '{"a": null, "b": null}', '{ "b":null,\n  "c":null\n}', '{"a":null,"b":null,"c":null}'],
    [
      '{}',
      '{"a":null}',
      '{"b":null,"a":null}',
      '{"b":null,}',
      '{,"b":null}',
      '{"b":null,"d":null}',
      '{"b":null "c":null}',
    ],
  ],
  [
    { type: 'object', properties: { ab: { type: 'null' } }, additionalProperties: { type: 'boolean' } },
    ['{}', '{"ab":null}', '{"a":true}', '{"abc":true}', '{"é":true,"x":false}', '{"ab":null,"b":true}'],
    ['{"ab":true}', '{"a":null}', '{"x":true,"ab":true}', '{"a\\u0062":true}', '{"":true}', '{"__proto__":true}'],
  ],
  [
    { type: 'array', items: { type: 'integer' }, minItems: 1, maxItems: 3 },
    ['[1]', '[1,2]', '[ 1, 2, 3 ]'],
    ['[]', '[1,2,3,4]', '[1,]', '[,1]'],
  ],
  [
    { prefixItems: [{ type: 'null' }, true], items: false, minItems: 1 },
    ['[null]', '[null,[{}]]'],
    ['[]', '[1]', '[null,1,2]'],
  ],
  [{ type: ['string', 'null'] }, ['null', '""'], ['1', 'nul']],
  [{ oneOf: [{ type: 'integer' }, { type: 'string' }] }, ['1', '"x"'], ['null']],
  [{ allOf: [{ $ref: '#/definitions/x' }], definitions: { x: { const: true } } }, ['true'], ['false']],
  [
    { $ref: '#/$defs/a~1b', $defs: { 'a/b': { items: { $ref: '#' }, maxItems: 1 } } },
    ['[]', '[[[]]]'],
    ['[[],[]]', '[', ']'],
  ],
  [true, ['{"a":[1,"x",{}]}', 'null', '[]', '-1.5'], ['{"a":}', '[1 2]', 'nulll']],
]

test.each(cases)('%j', (schema, texts, others) => {
  const grammar = jsonGrammar(schema)
  for (const text of texts) {
    expect([text, follows(grammar, text)]).toEqual([text, true])
    expect(ajv.validate(schema as object, JSON.parse(text))).toBe(true)
  }
  for (const text of others) expect([text, follows(grammar, text)]).toEqual([text, false])
})

test.each([
  [
    { type: 'object', properties: { a: { type: 'integer', multipleOf: 3 } } },
    '#/properties/a: multipleOf is not supported',
  ],
  [{ type: 'array', uniqueItems: true }, 'at #: uniqueItems'],
  [{ type: 'text' }, 'type must be'],
  [{ $ref: '#/nowhere' }, '$ref #/nowhere leads nowhere'],
  [{ $ref: 'http://other' }, '$ref must be'],
  [{ $ref: '#' }, 'leads back to itself'],
  [{ anyOf: [{ type: 'null' }, { $ref: '#' }] }, 'leads back to itself'],
  [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'may overlap'],
  [{ anyOf: [true], type: 'string' }, 'anyOf beside type'],
  [{ type: 'integer', minimum: 3, maximum: 2 }, 'between 3 and 2'],
  [{ type: 'number', minimum: 0.5 }, 'must be whole, got 0.5'],
  [{ type: 'string', pattern: '(?=a)' }, 'pattern: (?= is not supported'],
  [{ type: 'string', pattern: '(' }, 'Invalid regular expression'],
  [{ type: 'string', pattern: 'a', maxLength: 3 }, 'together with minLength'],
  [{ type: 'string', maxLength: 1e9 }, 'too large a grammar'],
  [{ type: 'string', enum: [1] }, 'no value of the type'],
  [{ items: [{}] }, 'prefixItems'],
  ['string', 'must be an object'],
])('%j is refused', (schema, reason) => {
  expect(() => jsonGrammar(schema)).toThrow(reason)
})

test('a schema that no finite text meets is refused, and so is one that the vocabulary cannot spell', () => {
  const endless = { type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] }
  expect(() => new Automaton(jsonGrammar(endless))).toThrow('no finite text')
  expect(() => new Automaton(jsonGrammar({ type: 'string', minLength: 3, maxLength: 2 }))).toThrow('no finite text')
  const letters = new Vocabulary([...'{}"abc'].map((letter) => bytes.encode(letter)))
  expect(() => new Constraint(jsonGrammar({ const: 'abé' }), letters, 6, [])).toThrow('no finite text')
  expect(() => new Constraint(jsonGrammar({ enum: ['abé', 'abc'] }), letters, 6, [])).not.toThrow()
})

test('alternatives of oneOf that a property tells apart are taken', () => {
  const shape = (kind: string, extra: object) => ({
    type: 'object',
    properties: { kind: { const: kind }, ...extra },
    required: ['kind'],
  })
  const grammar = jsonGrammar({ oneOf: [shape('a', { x: { type: 'null' } }), shape('b', {})] })
  expect(follows(grammar, '{"kind":"a","x":null}')).toBe(true)
  expect(follows(grammar, '{"kind":"b","x":null}')).toBe(false)
})

test('one of some texts; where one begins another the end token decides', () => {
  const constraint = new Constraint(choiceGrammar(['name', 'name 23', 'é']), vocabulary, tokens.length, [0])
  const allowed = (id: number, text = constraint.begin()) => (text.mask()[id >> 5] >>> (id & 31)) & 1
  const [name, e] = [257 + pieces.indexOf('name'), 257 + pieces.indexOf('é')]
  expect([allowed(name), allowed(e), allowed(0), allowed(1 + 0xc3)]).toEqual([1, 1, 0, 1])
  const text = constraint.begin()
  text.take(name)
  expect([allowed(0, text), text.isComplete(), text.isDone()]).toEqual([1, true, false])
  expect(() => text.take(e)).toThrow('Cannot take token')
  text.take(0)
  expect(text.isDone()).toBe(true)
  const other = constraint.begin()
  other.take(e)
  expect(other.isDone()).toBe(true)
  expect(() => choiceGrammar([])).toThrow('Cannot choose')
})
