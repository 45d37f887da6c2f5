/** What {@link parseYaml} gives. */
export type YamlValue = string | number | boolean | YamlValue[] | { [key: string]: YamlValue }

const key = /^([a-z][a-z0-9_]*):(?: (.+))?$/
const number = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?$/
const plain = /^[A-Za-z][A-Za-z0-9_/.-]*$/
// Words that some version of YAML takes for something else than text.
const taken = /^(?:true|false|null|yes|no|on|off|y|n|inf|nan)$/i

/**
 * Reads the part of YAML that {@link writeYaml} writes, which every YAML reader understands alike: block mappings and
 * lists of scalars, two spaces a level; numbers, true, false, plain words and JSON strings. No anchors, tags, flow
 * style, comments behind values or several documents. Lines that begin with # are left out.
 * @throws SyntaxError with the line.
 */
export function parseYaml(text: string): YamlValue {
  const lines = text
    .split('\n')
    .map((line, i) => ({ line, number: i + 1 }))
    .filter(({ line }) => line !== '' && !line.startsWith('#'))
  let at = 0
  const fault = (reason: string) => new SyntaxError(`Cannot read YAML: line ${lines[at]?.number ?? 'last'}: ${reason}`)

  function scalar(source: string): YamlValue {
    if (source === 'true' || source === 'false') return source === 'true'
    if (number.test(source)) return Number(source)
    if (source.startsWith('"')) {
      try {
        return JSON.parse(source) as string
      } catch {
        throw fault('a string is not valid')
      }
    }
    if (plain.test(source) && !taken.test(source)) return source
    throw fault(`${JSON.stringify(source.slice(0, 40))} is no plain word, number or string in quotation marks`)
  }

  function block(indent: string): YamlValue {
    const result: { [key: string]: YamlValue } = {}
    const list: YamlValue[] = []
    const isList = lines[at]?.line.startsWith(`${indent}- `)
    for (; at < lines.length && lines[at].line.startsWith(indent); at++) {
      const rest = lines[at].line.slice(indent.length)
      if (isList) {
        if (!rest.startsWith('- ')) throw fault('expected "- "')
        list.push(scalar(rest.slice(2)))
        continue
      }
      const match = key.exec(rest)
      if (!match) throw fault('expected "key:" or "key: value", indented by two spaces a level')
      const [, name, value] = match
      if (Object.hasOwn(result, name)) throw fault(`the key ${name} appears twice`)
      if (value !== undefined) result[name] = scalar(value)
      else {
        at++
        if (indent.length > 16) throw fault('nested too deeply')
        if (!lines[at]?.line.startsWith(`${indent}  `)) throw fault(`${name} has no value`)
        result[name] = block(`${indent}  `)
        at--
      }
    }
    return isList ? list : result
  }

  const value = block('')
  if (at < lines.length) throw fault('the indentation does not fit')
  return value
}

/** A mapping as YAML, in the order of its keys; {@link parseYaml} reads it back. @throws TypeError for empty blocks. */
export function writeYaml(value: YamlValue): string {
  return block(value, '')
}

function block(value: YamlValue, indent: string): string {
  const line = (start: string, item: YamlValue) =>
    typeof item === 'object'
      ? `${indent}${start.trimEnd()}\n${block(item, `${indent}  `)}`
      : `${indent}${start}${scalarText(item)}\n`
  if (typeof value !== 'object' || Object.keys(value).length === 0)
    throw new TypeError('Cannot write an empty block or a scalar as a YAML document')
  if (!Array.isArray(value)) {
    const names = Object.keys(value)
    const odd = names.find((name) => !key.test(`${name}:`))
    if (odd !== undefined) throw new TypeError(`Cannot write the key ${JSON.stringify(odd)} as YAML`)
    return names.map((name) => line(`${name}: `, value[name])).join('')
  }
  if (value.some((item) => typeof item === 'object')) throw new TypeError('Cannot write a list of blocks as YAML')
  return value.map((item) => line('- ', item)).join('')
}

function scalarText(value: string | number | boolean): string {
  if (typeof value === 'string') return plain.test(value) && !taken.test(value) ? value : JSON.stringify(value)
  const text = String(value)
  if (typeof value === 'number' && !number.test(text)) throw new TypeError(`Cannot write ${text} as YAML`)
  return text
}
