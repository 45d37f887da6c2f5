const loop = /\bfor \(var (\w+) = (\w+); \1 < ([\w */]+); \1(?:\+\+| \+= (\w+))\) \{/
/** A shuffle whose lane is known now that its loop is written out: a broadcast, which SwiftShader does in a third less. */
const constantShuffle = /\bsubgroupShuffle\(([^(),]+), (\d+u [%/] \w+)\)/g
/** Turns of a loop that is written out, and characters of all of them. */
const [mostTurns, mostText] = [32, 40_000]

/**
 * WGSL with its counted loops written out, where both bounds are known when it is compiled; other loops stay. For drivers
 * that leave loops as they are and keep arrays with a running index in memory, as SwiftShader does.
 * @param code linked WGSL without overrides.
 */
export function unrolled(code: string): string {
  const constants = new Map<string, number>()
  for (const [, name, value] of code.matchAll(/\bconst (\w+)(?:: u32)? = ([^;]+);/g)) {
    const known = numberOf(value, constants)
    if (known !== undefined) constants.set(name, known)
  }
  return writtenOut(code, constants).replace(constantShuffle, 'subgroupBroadcast($1, $2)')
}

function writtenOut(code: string, constants: ReadonlyMap<string, number>): string {
  let done = ''
  let rest = code
  for (let found = loop.exec(rest); found; found = loop.exec(rest)) {
    const [head, name, from, to, by = '1u'] = found
    const begin = found.index + head.length
    const end = endOf(rest, begin)
    const body = rest.slice(begin, end)
    const [first, last, step] = [from, to, by].map((text) => numberOf(text, constants))
    done += rest.slice(0, found.index)
    rest = rest.slice(end + 1)
    const turns = Math.ceil((last! - first!) / step!)
    const text = writtenOut(body, constants)
    // A count that a name inside hides, or a way out of the loop, is left alone.
    const plain = !/\b(break|continue|return)\b/.test(body) && !new RegExp(`\\b(let|var|const) ${name}\\b`).test(body)
    if (plain && turns <= mostTurns && turns * text.length <= mostText) {
      const word = new RegExp(`(?<![.\\w])${name}\\b`, 'g')
      const each = Array.from({ length: turns }, (_, i) => `{${text.replace(word, `${first! + i * step!}u`)}}`)
      done += each.join('\n')
    } else done += `${head}${text}}`
  }
  return done + rest
}

/** Where the brace that closes a body stands. */
function endOf(code: string, begin: number): number {
  let depth = 1
  for (let at = begin; at < code.length; at++) {
    if (code[at] === '{') depth++
    else if (code[at] === '}' && --depth === 0) return at
  }
  throw new SyntaxError('Cannot unroll WGSL: a loop has no end')
}

/** The value of a whole number, of a constant, or of a product or quotient of two. */
function numberOf(text: string, constants: ReadonlyMap<string, number>): number | undefined {
  const term = (word: string) => (/^\d+u?$/.test(word) ? Number.parseInt(word, 10) : constants.get(word))
  const [, a, sign, b] = /^\s*(\w+)\s*(?:([*/])\s*(\w+)\s*)?$/.exec(text) ?? []
  if (a === undefined) return undefined
  const [left, right] = [term(a), sign ? term(b) : 1]
  if (left === undefined || right === undefined) return undefined
  return sign === '/' ? Math.floor(left / right) : left * right
}
