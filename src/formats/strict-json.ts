/** `text` in quotation marks for an error message, at most 80 characters of it. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}

/**
 * Parses JSON from an untrusted file, with what `JSON.parse` lets pass refused: a key twice in one object, `__proto__`
 * keys, integers that a double cannot hold, nesting deeper than 64.
 * @returns objects as Maps in the order of the text, arrays, strings, numbers, booleans and null.
 * @throws SyntaxError with the offset in the text.
 */
export function parseJsonStrictly(text: string): unknown {
  let at = 0
  const fault = (reason: string) => new SyntaxError(`${reason} at character ${at}`)
  const space = /[ \t\n\r]*/y
  const string = /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y
  const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
  const word = /true|false|null/y

  function match(pattern: RegExp): string | undefined {
    pattern.lastIndex = at
    const found = pattern.exec(text)?.[0]
    if (found !== undefined) at += found.length
    return found
  }
  function expect(character: string): void {
    match(space)
    if (text[at] !== character) throw fault(`expected ${character}`)
    at++
  }
  function next(): string {
    match(space)
    return text[at]
  }

  function object(depth: number): Map<string, unknown> {
    const result = new Map<string, unknown>()
    expect('{')
    if (next() === '}') {
      at++
      return result
    }
    do {
      if (result.size > 0) at++
      match(space)
      const raw = match(string)
      if (raw === undefined) throw fault('expected a key')
      const key = JSON.parse(raw) as string
      if (key === '__proto__') throw fault('the key __proto__ is not allowed')
      if (result.has(key)) throw fault(`the key ${quote(key)} appears twice`)
      expect(':')
      result.set(key, value(depth + 1))
    } while (next() === ',')
    expect('}')
    return result
  }

  function array(depth: number): unknown[] {
    const result: unknown[] = []
    expect('[')
    if (next() === ']') {
      at++
      return result
    }
    do {
      if (result.length > 0) at++
      result.push(value(depth + 1))
    } while (next() === ',')
    expect(']')
    return result
  }

  function value(depth: number): unknown {
    if (depth > 64) throw fault('nested too deeply')
    const first = next()
    if (first === '{') return object(depth)
    if (first === '[') return array(depth)
    if (first === '"') {
      const raw = match(string)
      if (raw === undefined) throw fault('a string is not closed')
      return JSON.parse(raw)
    }
    const name = match(word)
    if (name !== undefined) return name === 'null' ? null : name === 'true'
    const digits = match(number)
    if (digits === undefined) throw fault('expected a value')
    const parsed = Number(digits)
    if (/^-?\d+$/.test(digits) && !Number.isSafeInteger(parsed))
      throw fault(`the integer ${digits.slice(0, 80)} is too large`)
    return parsed
  }

  const result = value(0)
  match(space)
  if (at !== text.length) throw fault('text after the end')
  return result
}
