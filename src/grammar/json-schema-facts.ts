/** A schema that cannot be followed: the message names the keyword and its place. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError'
}

/** The keywords that are followed. */
export interface Schema {
  readonly type?: string | readonly string[]
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly unknown[]
  readonly oneOf?: readonly unknown[]
  readonly allOf?: readonly unknown[]
  readonly $ref?: string
  readonly properties?: Readonly<Record<string, unknown>>
  readonly required?: readonly string[]
  readonly additionalProperties?: unknown
  readonly items?: unknown
  readonly prefixItems?: readonly unknown[]
  readonly minItems?: number
  readonly maxItems?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
}

/** A schema and where it stands. */
export interface Found {
  readonly schema: unknown
  readonly path: string
}

const count = (value: unknown) => Number.isInteger(value) && (value as number) >= 0
const number = (value: unknown) => typeof value === 'number' && Number.isFinite(value)
const list = (value: unknown) => Array.isArray(value) && value.length > 0
const map = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)
const sub = (value: unknown) => typeof value === 'boolean' || map(value)
const types = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object']

/** What each keyword must hold, and what it is said to hold. */
const keywords: Readonly<Record<string, readonly [check: (value: unknown) => boolean, wanted: string]>> = {
  type: [
    (value) => [value].flat().every((type) => types.includes(type as string)) && [value].flat().length > 0,
    types.join(', '),
  ],
  const: [() => true, ''],
  enum: [list, 'a list of values'],
  anyOf: [list, 'a list of schemas'],
  oneOf: [list, 'a list of schemas'],
  allOf: [(value) => Array.isArray(value) && value.length === 1, 'a list of one schema: more are not supported'],
  $ref: [(value) => typeof value === 'string' && /^#(\/|$)/.test(value), 'a place in the same schema, as #/$defs/name'],
  properties: [(value) => map(value) && Object.values(value as object).every(sub), 'an object of schemas'],
  required: [(value) => Array.isArray(value) && value.every((name) => typeof name === 'string'), 'a list of names'],
  additionalProperties: [sub, 'a schema'],
  items: [sub, 'a schema; lists are called prefixItems'],
  prefixItems: [(value) => list(value) && (value as unknown[]).every(sub), 'a list of schemas'],
  ...Object.fromEntries(
    ['minItems', 'maxItems', 'minLength', 'maxLength'].map((name) => [name, [count, 'a whole number, 0 or larger']]),
  ),
  pattern: [(value) => typeof value === 'string', 'a regular expression'],
  ...Object.fromEntries(
    ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'].map((name) => [name, [number, 'a number']]),
  ),
}
/** Keywords that say nothing about a value. */
const notes = new Set(
  '$schema $id $anchor $comment $defs definitions title description default examples deprecated readOnly writeOnly'.split(
    ' ',
  ),
)
/** Keywords that stand alone. */
const alone = ['$ref', 'anyOf', 'oneOf', 'allOf']

/** Where a value of `found` stands. */
export function at(found: Found, keyword: string, name: string | number, schema: unknown): Found {
  return { schema, path: `${found.path}/${keyword}/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}` }
}

/**
 * A schema whose keywords are all supported and hold what they should.
 * @throws SchemaError naming the first that is not.
 */
export function asSchema({ schema, path }: Found): Schema {
  const fault = (reason: string) => new SchemaError(`Cannot follow the schema at ${path}: ${reason}`)
  if (!map(schema)) throw fault('it must be an object, true or false')
  const used = Object.keys(schema as object).filter((name) => !notes.has(name))
  for (const name of used) {
    const value = (schema as Record<string, unknown>)[name]
    if (!Object.hasOwn(keywords, name))
      throw fault(`${name} is not supported; supported are ${Object.keys(keywords).join(', ')}`)
    const [check, wanted] = keywords[name]
    if (!check(value)) throw fault(`${name} must be ${wanted}`)
  }
  const single = alone.find((name) => used.includes(name))
  if (single && used.length > 1)
    throw fault(`${single} beside ${used.find((name) => name !== single)} is not supported: put them in one place`)
  const constant = ['const', 'enum'].find((name) => used.includes(name))
  const beside = constant && used.find((name) => name !== constant && name !== 'type')
  if (beside) throw fault(`${constant} beside ${beside} is not supported`)
  return schema as Schema
}

/** The types that a schema's keywords speak of; undefined when they speak of none. */
export function typesOf(schema: Schema): readonly string[] | undefined {
  if (schema.type !== undefined) return [schema.type].flat() as string[]
  const has = (...names: (keyof Schema)[]) => names.some((name) => schema[name] !== undefined)
  const found: string[] = []
  if (has('properties', 'required', 'additionalProperties')) found.push('object')
  if (has('items', 'prefixItems', 'minItems', 'maxItems')) found.push('array')
  if (has('minLength', 'maxLength', 'pattern')) found.push('string')
  if (has('minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum')) found.push('number')
  return found.length > 0 ? found : undefined
}

/**
 * The schemas that a schema stands for, when it is a $ref, anyOf, oneOf or allOf.
 * @throws SchemaError when a $ref leads nowhere, or they lead back to it.
 */
export function resolve(root: unknown, found: Found): readonly Found[] | undefined {
  const alternatives = alternativesOf(root, found)
  if (!alternatives) return undefined
  const walk = (each: Found, open: readonly unknown[]): void => {
    if (open.includes(each.schema))
      throw new SchemaError(
        `Cannot follow the schema at ${found.path}: it leads back to itself without a value between`,
      )
    if (map(each.schema)) for (const inner of alternativesOf(root, each) ?? []) walk(inner, [...open, each.schema])
  }
  walk(found, [])
  return alternatives
}

function alternativesOf(root: unknown, found: Found): readonly Found[] | undefined {
  const schema = asSchema(found)
  if (schema.$ref !== undefined) return [lookUp(root, schema.$ref, found)]
  for (const name of ['anyOf', 'oneOf', 'allOf'] as const) {
    const options = schema[name]
    if (options) return options.map((option, i) => at(found, name, i, option))
  }
  return undefined
}

function lookUp(root: unknown, reference: string, found: Found): Found {
  let schema = root
  for (const part of decodeURIComponent(reference).split('/').slice(1)) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
    const inside = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key)
    if (!inside) throw new SchemaError(`Cannot follow the schema at ${found.path}: $ref ${reference} leads nowhere`)
    schema = (schema as Record<string, unknown>)[key]
  }
  return { schema, path: reference }
}

/** Whether no value can be of two of these schemas, as far as their types, constants and required constants tell. */
export function areDisjoint(root: unknown, alternatives: readonly Found[]): boolean {
  const all = alternatives.map((found) => flatten(root, found))
  return all.every((left, i) =>
    all.slice(i + 1).every((right) => left.every((a) => right.every((b) => apart(root, a, b)))),
  )
}

/** The schemas that are left when references and alternatives are followed; undefined for any value. */
function flatten(root: unknown, found: Found): (Schema | undefined)[] {
  if (!map(found.schema)) return found.schema === false ? [] : [undefined]
  const alternatives = resolve(root, found)
  return alternatives ? alternatives.flatMap((each) => flatten(root, each)) : [asSchema(found)]
}

function apart(root: unknown, a: Schema | undefined, b: Schema | undefined): boolean {
  if (!a || !b) return false
  const [left, right] = [constantsOf(a), constantsOf(b)]
  if (left && right)
    return !left.some((value) => right.some((other) => JSON.stringify(value) === JSON.stringify(other)))
  const [kinds, others] = [kindsOf(a), kindsOf(b)]
  const shared = kinds.filter((kind) => others.includes(kind))
  if (shared.length === 0) return true
  if (shared.length > 1 || shared[0] !== 'object') return false
  // Objects are apart when a property that both require is.
  return (a.required ?? []).some((name) => {
    const [mine, theirs] = [a.properties?.[name], b.properties?.[name]]
    if (!b.required?.includes(name) || mine === undefined || theirs === undefined) return false
    return areDisjoint(
      root,
      [mine, theirs].map((schema) => ({ schema, path: `property ${name}` })),
    )
  })
}

function constantsOf(schema: Schema): readonly unknown[] | undefined {
  return schema.const !== undefined ? [schema.const] : schema.enum
}

/** Types as values have them: a whole number is a number. */
function kindsOf(schema: Schema): string[] {
  const constants = constantsOf(schema)
  if (constants)
    return [
      ...new Set(constants.map((value) => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value))),
    ]
  // Without a type, the keywords bind values of theirs alone, and all others are valid.
  return schema.type === undefined
    ? [...types]
    : [schema.type].flat().map((type) => (type === 'integer' ? 'number' : type))
}
