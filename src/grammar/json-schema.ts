import { anyCharacter, anyJsonCharacter, type CharacterSet, differenceOf, jsonCharacter, utf8 } from './characters.ts'
import {
  areDisjoint,
  asSchema,
  at,
  type Found,
  resolve,
  type Schema,
  SchemaError,
  typesOf,
} from './json-schema-facts.ts'
import { integerPiece, numberPiece } from './numbers.ts'
import { patternPiece } from './pattern.ts'
import {
  call,
  either,
  empty,
  end,
  literal,
  optional,
  type Piece,
  type Place,
  type Rule,
  repeat,
  ruleOf,
  sequence,
} from './piece.ts'

/**
 * A grammar of the JSON texts that follow a schema: each of its texts parses and validates, though not every valid text
 * is among them. Properties come in the order of the schema, and only those that it lists unless additionalProperties
 * says otherwise; numbers have up to 15 digits before the point; between tokens there is nothing, a space, or a line
 * break with up to 20 spaces.
 *
 * Supported: type (one or several), properties, required, additionalProperties, items, prefixItems, minItems, maxItems,
 * enum, const, minLength, maxLength, pattern, minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf whose
 * alternatives cannot overlap, allOf of one, $ref within the schema (recursive too), $defs, definitions, true and false.
 * @param schema the parsed schema.
 * @throws SchemaError naming keyword and place of what is not supported or cannot be met.
 */
export function jsonGrammar(schema: unknown): Rule {
  return new SchemaReader(schema).read()
}

/** A grammar of nothing but these texts. @throws SchemaError when there are none. */
export function choiceGrammar(choices: readonly string[]): Rule {
  if (choices.length === 0 || choices.some((choice) => choice === ''))
    throw new SchemaError('Cannot choose among no texts, or an empty one')
  return ruleOf('choices', either(...choices.map((choice) => literal(choice))))
}

const quote = literal('"')
const space = either(empty, literal(' '), sequence(literal('\n'), repeat(literal(' '), 0, 20)))
const anyText = ruleOf('character', anyJsonCharacter())
/** The keys that a schema does not name are spelled without escapes, so that they can be told from those that it does. */
const plainCharacters = differenceOf(anyCharacter, [
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
])

class SchemaReader {
  readonly #root: unknown
  readonly #rules = new Map<unknown, Rule>()
  readonly #waiting: Found[] = []
  readonly #plain = ruleOf('plain character', utf8(plainCharacters))
  #any: Rule | undefined

  constructor(root: unknown) {
    this.#root = root
  }

  read(): Rule {
    const rule = this.#ruleOf({ schema: this.#root, path: '#' })
    for (let next = this.#waiting.pop(); next; next = this.#waiting.pop())
      this.#rules.get(next.schema)!.start = this.#value(next).build(end)
    return rule
  }

  /** The rule of a schema; what it says is read later, so that schemas may contain themselves. */
  #ruleOf(found: Found): Rule {
    let rule = this.#rules.get(found.schema)
    if (!rule) {
      rule = { name: found.path, start: end }
      this.#rules.set(found.schema, rule)
      this.#waiting.push(found)
    }
    return rule
  }

  #call(found: Found): Piece {
    if (found.schema === true) return call(this.#anyValue())
    return call(this.#ruleOf(found))
  }

  /** Runs what may refuse something, and says where. */
  #within<T>(found: Found, keyword: string, work: () => T): T {
    try {
      return work()
    } catch (error) {
      if (error instanceof RangeError)
        throw new SchemaError(`Cannot follow the schema at ${found.path}: ${keyword}: ${error.message}`)
      throw error
    }
  }

  #value(found: Found): Piece {
    if (found.schema === true) return call(this.#anyValue())
    if (found.schema === false) return either()
    const schema = asSchema(found)
    const alternatives = resolve(this.#root, found)
    if (alternatives) {
      if (schema.oneOf && !areDisjoint(this.#root, alternatives))
        throw new SchemaError(
          `Cannot follow the schema at ${found.path}: the alternatives of oneOf may overlap; use anyOf, or give each a ` +
            'property with a const of its own',
        )
      return either(...alternatives.map((alternative) => this.#call(alternative)))
    }
    if (schema.const !== undefined || schema.enum !== undefined) return this.#constants(found, schema)
    const types = typesOf(schema)
    if (!types) return call(this.#anyValue())
    return either(...types.map((type) => this.#ofType(found, schema, type)))
  }

  #constants(found: Found, schema: Schema): Piece {
    const types = schema.type === undefined ? undefined : typesOf(schema)
    const values = (schema.const !== undefined ? [schema.const] : schema.enum!).filter(
      (value) => !types || types.some((type) => isOfType(value, type)),
    )
    if (values.length === 0)
      throw new SchemaError(`Cannot follow the schema at ${found.path}: enum has no value of the type`)
    return either(...values.map((value) => literal(JSON.stringify(value))))
  }

  #ofType(found: Found, schema: Schema, type: string): Piece {
    switch (type) {
      case 'null':
        return literal('null')
      case 'boolean':
        return either(literal('true'), literal('false'))
      case 'integer':
        return this.#within(found, 'minimum or maximum', () => integerPiece(schema))
      case 'number':
        return this.#within(found, 'minimum or maximum', () => numberPiece(schema))
      case 'string':
        return this.#string(found, schema)
      case 'array':
        return this.#array(found, schema)
      default:
        return this.#object(found, schema)
    }
  }

  #string(found: Found, { minLength = 0, maxLength = Number.POSITIVE_INFINITY, pattern }: Schema): Piece {
    if (pattern !== undefined) {
      if (minLength > 0 || Number.isFinite(maxLength))
        throw new SchemaError(
          `Cannot follow the schema at ${found.path}: pattern together with minLength or maxLength is not supported; ` +
            'count in the pattern',
        )
      return sequence(
        quote,
        this.#within(found, 'pattern', () => patternPiece(pattern)),
        quote,
      )
    }
    const inside = this.#within(found, 'minLength or maxLength', () => repeat(call(anyText), minLength, maxLength))
    return sequence(quote, maxLength < minLength ? either() : inside, quote)
  }

  #array(found: Found, schema: Schema): Piece {
    const { items = true, prefixItems = [], minItems = 0, maxItems = Number.POSITIVE_INFINITY } = schema
    const itemAt = (i: number) => {
      const [inside, key] = i < prefixItems.length ? [prefixItems[i], `prefixItems/${i}`] : [items, 'items']
      return sequence(
        i === 0 ? empty : sequence(literal(','), space),
        this.#call({ schema: inside, path: `${found.path}/${key}` }),
      )
    }
    const fixed = Math.min(Math.max(prefixItems.length, 1), maxItems)
    const more = this.#within(found, 'minItems or maxItems', () =>
      maxItems > fixed ? repeat(itemAt(Math.max(fixed, 1)), Math.max(0, minItems - fixed), maxItems - fixed) : empty,
    )
    // From the last item that has a place of its own to the first: each may end the array once there are enough.
    let rest: Piece = maxItems < minItems ? either() : more
    for (let i = fixed - 1; i >= 0; i--) {
      const present = sequence(itemAt(i), rest)
      rest = i >= minItems ? optional(present) : present
    }
    return sequence(literal('['), space, rest, space, literal(']'))
  }

  #object(found: Found, schema: Schema): Piece {
    const { properties = {}, required = [] } = schema
    const open = schema.additionalProperties ?? schema.properties === undefined
    const additional: Found = {
      schema: open,
      path: schema.additionalProperties === undefined ? `${found.path}/*` : `${found.path}/additionalProperties`,
    }
    const names = new Map(
      Object.entries(properties).map(([name, value]) => [name, at(found, 'properties', name, value)]),
    )
    for (const name of required) if (!names.has(name)) names.set(name, additional)
    const keys = [...names.keys()]
    const entries = [...names].map(([name, value]): Rule => {
      const rule: Rule = { name, start: end }
      rule.start = sequence(literal(JSON.stringify(name)), space, literal(':'), space, this.#call(value)).build(end)
      return rule
    })
    const comma = sequence(literal(','), space)
    const others: Rule | undefined =
      open === false
        ? undefined
        : ruleOf(
            'other property',
            sequence(quote, this.#otherKey(keys), quote, space, literal(':'), space, this.#call(additional)),
          )
    // Two chains: before the first property that is there, and after it, where a comma comes first.
    const tail = others ? repeat(sequence(comma, call(others)), 0) : empty
    const after = {
      size: 0,
      build: (next: Place) => this.#chain(entries, keys, required, comma, others, tail, next),
    }
    return sequence(literal('{'), space, after, literal('}'))
  }

  #chain(
    entries: readonly Rule[],
    keys: readonly string[],
    required: readonly string[],
    comma: Piece,
    others: Rule | undefined,
    tail: Piece,
    next: Place,
  ): Place {
    const close = space.build(next)
    const some = tail.build(close)
    let later = some
    let first: Place = others ? { kind: 'either', options: [next, call(others).build(some)] } : next
    for (let i = entries.length - 1; i >= 0; i--) {
      const must = required.includes(keys[i])
      const here = call(entries[i]).build(later)
      const join = comma.build(here)
      first = must ? here : { kind: 'either', options: [here, first] }
      later = must ? join : { kind: 'either', options: [join, later] }
    }
    return first
  }

  /** Any key but those of `names`, without escapes. */
  #otherKey(names: readonly string[]): Piece {
    const rest = repeat(call(this.#plain), 0)
    // __proto__ would be a property of every object that was parsed.
    const spelled = [...names, '__proto__'].filter((name) => JSON.stringify(name).length === name.length + 2)
    const walk = (suffixes: readonly string[], root: boolean): Piece => {
      const groups = new Map<number, string[]>()
      for (const suffix of suffixes)
        if (suffix !== '') {
          const point = suffix.codePointAt(0)!
          groups.set(point, [...(groups.get(point) ?? []), suffix.slice(point > 0xffff ? 2 : 1)])
        }
      const taken: CharacterSet = [...groups.keys()].sort((a, b) => a - b).map((point) => [point, point] as const)
      const options = [...groups].map(([point, after]) => sequence(jsonCharacter([[point, point]]), walk(after, false)))
      // The key may end where no name does; an empty key is not made.
      if (!root && !suffixes.includes('')) options.push(empty)
      return either(sequence(utf8(differenceOf(plainCharacters, taken)), rest), ...options)
    }
    return walk(spelled, true)
  }

  /** Any JSON value. */
  #anyValue(): Rule {
    if (this.#any) return this.#any
    const rule: Rule = { name: 'any value', start: end }
    this.#any = rule
    const found: Found = { schema: {}, path: '#' }
    const value = either(
      ...['null', 'boolean', 'number', 'string', 'array', 'object'].map((type) => this.#ofType(found, {}, type)),
    )
    rule.start = value.build(end)
    return rule
  }
}

function isOfType(value: unknown, type: string): boolean {
  if (type === 'null') return value === null
  if (type === 'array') return Array.isArray(value)
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value)
  if (type === 'integer') return Number.isInteger(value)
  return typeof value === type
}
