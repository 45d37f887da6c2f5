import type { Tokenizer } from '../formats/tokenizer.ts'

/**
 * Turns tokens into text as they come. Text is held back while a character is incomplete or a stop string may be
 * beginning, so what was given out never has to be taken back.
 */
export class TextStream {
  readonly #tokenizer: Tokenizer
  readonly #stops: readonly string[]
  readonly #ids: number[] = []
  /** Tokens before this one are not decoded again; those from `#read` on are not in the text yet. */
  #from = 0
  #read = 0
  #held = ''
  #stopped = false

  /** @param stops strings that end the text; they are not part of it. */
  constructor(tokenizer: Tokenizer, stops: readonly string[] = []) {
    this.#tokenizer = tokenizer
    this.#stops = stops.filter((stop) => stop !== '')
  }

  /** Whether a stop string came. */
  get stopped(): boolean {
    return this.#stopped
  }

  /** Takes a token in. @returns the text that is certain now; often empty. */
  push(id: number): string {
    if (this.#stopped) return ''
    this.#ids.push(id)
    const before = this.#tokenizer.decode(this.#ids.slice(this.#from, this.#read))
    const after = this.#tokenizer.decode(this.#ids.slice(this.#from))
    if (after.length <= before.length || after.endsWith('\ufffd')) return ''
    this.#from = this.#read
    this.#read = this.#ids.length
    return this.#release(this.#held + after.slice(before.length))
  }

  /** The rest, when no more tokens come. */
  end(): string {
    if (this.#stopped) return ''
    const before = this.#tokenizer.decode(this.#ids.slice(this.#from, this.#read))
    const after = this.#tokenizer.decode(this.#ids.slice(this.#from))
    const rest = this.#held + after.slice(before.length)
    this.#held = ''
    this.#read = this.#ids.length
    return rest
  }

  #release(text: string): string {
    const ends = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0)
    if (ends.length > 0) {
      this.#stopped = true
      return text.slice(0, Math.min(...ends))
    }
    let keep = 0
    for (const stop of this.#stops)
      for (let length = Math.min(stop.length - 1, text.length); length > keep; length--)
        if (stop.startsWith(text.slice(text.length - length))) keep = length
    this.#held = text.slice(text.length - keep)
    return text.slice(0, text.length - keep)
  }
}
