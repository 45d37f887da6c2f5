/**
 * JSON in the one form that equal values have: keys sorted by UTF-16 code units, no spaces, numbers and strings as
 * ECMAScript writes them.
 * @throws TypeError for what JSON cannot carry: NaN, infinities, half of a surrogate pair, functions, undefined in arrays.
 * @see RFC 8785, section 3.2.
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined)
    entries.sort(([a], [b]) => (a < b ? -1 : 1))
    return `{${entries.map(([key, item]) => `${canonicalJson(key)}:${canonicalJson(item)}`).join(',')}}`
  }
  const plain = value === null || ['string', 'number', 'boolean'].includes(typeof value)
  if (!plain || (typeof value === 'number' && !Number.isFinite(value)))
    throw new TypeError(`Cannot write ${String(value)} as canonical JSON: there is no such value in JSON`)
  if (typeof value === 'string' && !value.isWellFormed())
    throw new TypeError(`Cannot write ${JSON.stringify(value)} as canonical JSON: it holds half of a surrogate pair`)
  return JSON.stringify(value)
}
