import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja'
import { encodeWithSpecials, type Tokenizer } from './tokenizer.ts'

/** One message of a conversation, as chat templates know it; more fields are passed on. */
export interface ChatMessage {
  readonly role: string
  readonly content: unknown
  readonly [field: string]: unknown
}

/** How a conversation is turned into text. */
export interface ChatOptions {
  /** Ends with the header of the assistant's answer. On unless told. */
  readonly addGenerationPrompt?: boolean
  /** Tools, and whatever else the template asks for. */
  readonly variables?: Readonly<Record<string, unknown>>
  /** What the template's clock shows. Now unless told. */
  readonly now?: Date
}

/** Ids of a conversation, and which of them are to be learned. */
export interface TrainedIds {
  readonly ids: readonly number[]
  readonly trained: readonly boolean[]
}

/** Bounds on what a template, which comes with a model and is a program, may take. */
export interface ChatLimits {
  /** Milliseconds of one rendering; 1,000 unless told. */
  readonly milliseconds?: number
  /** Characters of any text or entries of any list; 2^20 unless told. */
  readonly size?: number
}

const mostTemplateLength = 2 ** 18
const mostSteps = 2_000_000

/** The chat template among the settings of a tokenizer_config.json: a text, or the one called default. */
export function chatTemplateOf(settings: object): string | undefined {
  const { chat_template: found } = settings as { chat_template?: unknown }
  if (typeof found === 'string') return found
  if (!Array.isArray(found)) return undefined
  const named = found as { name?: unknown; template?: unknown }[]
  const template = named.find((entry) => entry?.name === 'default')?.template
  return typeof template === 'string' ? template : undefined
}

/**
 * A model's chat template, run with bounds on time and size.
 *
 * @example
 * const chat = new ChatTemplate(chatTemplateOf(settings)!, settings)
 * const ids = chat.encode(tokenizer, [{ role: 'user', content: 'Hello' }])
 */
export class ChatTemplate {
  readonly #program: ReturnType<typeof parse>
  readonly #tokens: Readonly<Record<string, string>>
  readonly #limits: Required<ChatLimits>

  /**
   * @param settings where bos_token, eos_token and the like are: a text each, or an object with `content`.
   * @throws SyntaxError when the template cannot be parsed.
   */
  constructor(template: string, settings: object = {}, limits: ChatLimits = {}) {
    if (template.length > mostTemplateLength)
      throw new SyntaxError(
        `Cannot read the chat template: it has ${template.length} characters, at most ${mostTemplateLength} are read`,
      )
    try {
      this.#program = parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }))
    } catch (error) {
      throw new SyntaxError(`Cannot read the chat template: ${(error as Error).message}`)
    }
    const tokens: Record<string, string> = {}
    for (const name of ['bos_token', 'eos_token', 'pad_token', 'unk_token']) {
      const value = (settings as Record<string, unknown>)[name]
      const text = typeof value === 'object' ? (value as { content?: unknown } | null)?.content : value
      if (typeof text === 'string') tokens[name] = text
    }
    this.#tokens = tokens
    this.#limits = { milliseconds: 1000, size: 2 ** 20, ...limits }
  }

  /**
   * The conversation as text.
   * @throws SyntaxError when the template fails, refuses the conversation, or takes more than its limits.
   */
  render(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = true, variables = {}, now = new Date() } = options
    const environment = new Environment()
    const globals: Record<string, unknown> = {
      ...{ true: true, True: true, false: false, False: false, none: null, None: null },
      raise_exception(message: unknown) {
        throw new Error(String(message))
      },
      range: (...bounds: number[]) => this.#range(bounds),
      strftime_now: (format: string) => formatTime(now, String(format)),
      ...this.#tokens,
      ...variables,
      messages: structuredClone(messages),
      add_generation_prompt: addGenerationPrompt,
    }
    try {
      for (const [name, value] of Object.entries(globals)) environment.set(name, value)
      const interpreter = new BoundedInterpreter(environment, this.#limits)
      return interpreter.run(this.#program).value
    } catch (error) {
      throw new SyntaxError(`Cannot render the chat template: ${(error as Error).message}`)
    }
  }

  /**
   * Token ids of the conversation. Special tokens come from the template alone: what messages and variables spell
   * stays text. Nothing is added at the ends.
   * @throws SyntaxError as {@link render} does; RangeError when the vocabulary lacks a character.
   */
  encode(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    const { text, encode } = this.#guarded(tokenizer, messages, options)
    return encode(text(messages.length, options.addGenerationPrompt ?? true))
  }

  /**
   * The conversation for training: its ids, and which of them the assistant says, its end token included. Each part is
   * encoded by itself, as it is when the model answers. Where a template shows earlier answers in another way than last
   * ones (without their thoughts), the conversation becomes a row for each answer that it shows so.
   * @throws SyntaxError as {@link render} does, or when an answer does not begin where the template prompts for one.
   */
  encodeAnswers(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: ChatOptions = {}): TrainedIds[] {
    const { text, encode, spellings } = this.#guarded(tokenizer, messages, options)
    const rows: TrainedIds[] = []
    const answers = [...messages.keys()].filter((i) => messages[i].role === 'assistant')
    const span = (whole: string, i: number) => {
      const [before, after] = [text(i, true), text(i + 1, false)]
      return whole.startsWith(after) && after.startsWith(before) ? ([before.length, after.length] as const) : undefined
    }
    const addRow = (whole: string, spans: readonly (readonly [number, number])[]) => {
      const ids: number[] = []
      const trained: boolean[] = []
      const put = (part: string, learn: boolean) => {
        for (const id of encode(part)) {
          ids.push(id)
          trained.push(learn)
        }
      }
      let at = 0
      for (const [begin, end] of spans) {
        put(whole.slice(at, begin), false)
        at = endOfAnswer(whole.slice(begin, end), spellings) + begin
        put(whole.slice(begin, at), true)
      }
      put(whole.slice(at), false)
      rows.push({ ids, trained })
    }
    const whole = text(messages.length, false)
    const spans = answers.flatMap((i) => [span(whole, i)].filter((found) => found !== undefined))
    for (const i of answers) {
      if (span(whole, i)) continue
      const own = text(i + 1, false)
      const found = span(own, i)
      if (!found)
        throw new SyntaxError(
          `Cannot train on the conversation: the chat template does not begin message ${i} as it prompts for an answer`,
        )
      addRow(own, [found])
    }
    if (spans.length > 0) addRow(whole, spans)
    return rows
  }

  /** Renders the first messages with what they spell kept from becoming special tokens, and encodes such text. */
  #guarded(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: ChatOptions) {
    const spellings = [...tokenizer.specials.keys()].filter((spelling) => spelling.length > 1)
    const given = JSON.stringify([messages, options.variables ?? {}])
    const mark = noncharacters.find((character) => !given.includes(character))
    if (mark === undefined)
      throw new SyntaxError('Cannot encode the conversation: it holds every noncharacter of Unicode')
    const guard = (value: unknown) => mapTexts(value, (text) => breakSpellings(text, spellings, mark))
    const guarded = guard(messages) as ChatMessage[]
    const variables = options.variables && { variables: guard(options.variables) as Record<string, unknown> }
    const unmarked: Tokenizer = { ...tokenizer, encode: (part) => tokenizer.encode(part.replaceAll(mark, '')) }
    return {
      spellings,
      text: (count: number, addGenerationPrompt: boolean) =>
        this.render(guarded.slice(0, count), { ...options, ...variables, addGenerationPrompt }),
      encode: (text: string) => encodeWithSpecials(unmarked, text),
    }
  }

  #range(bounds: readonly number[]): number[] {
    const [start, stop] = bounds.length > 1 ? bounds : [0, bounds[0]]
    const step = bounds[2] ?? 1
    const length = Math.max(0, Math.ceil((stop - start) / step))
    if (!(length <= this.#limits.size))
      throw new Error(`a range of ${length} numbers is larger than ${this.#limits.size}`)
    return Array.from({ length }, (_, i) => start + i * step)
  }
}

/** Where an answer ends: before the white space that a template puts behind its end token, if it has one. */
function endOfAnswer(answer: string, spellings: readonly string[]): number {
  const end = answer.trimEnd()
  return spellings.some((spelling) => end.endsWith(spelling)) ? end.length : answer.length
}

/** Characters that Unicode sets aside for use inside a program, U+FDD0 to U+FDEF. */
const noncharacters = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i))

/** `text` with `mark` after the first character of each special token that it spells, overlapping ones too. */
function breakSpellings(text: string, spellings: readonly string[], mark: string): string {
  const places = new Set<number>()
  for (const spelling of spellings)
    for (let at = text.indexOf(spelling); at >= 0; at = text.indexOf(spelling, at + 1)) places.add(at + 1)
  let result = ''
  let from = 0
  for (const at of [...places].sort((a, b) => a - b)) {
    result += text.slice(from, at) + mark
    from = at
  }
  return result + text.slice(from)
}

/** A copy of `value` with every text inside it changed, names of fields excepted. */
function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value)
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, change))
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapTexts(item, change)]))
  return value
}

/** The package's declarations lose its interpreter in Node's module resolution; this is the part used here. */
interface JinjaInterpreter {
  run(program: unknown): { value: string }
  evaluate(statement: unknown, environment: unknown): { value: unknown }
}
const JinjaInterpreter = Interpreter as unknown as new (environment: unknown) => JinjaInterpreter

/** An interpreter that gives up when a template takes too long or makes too much. */
class BoundedInterpreter extends JinjaInterpreter {
  readonly #end: number
  readonly #limits: Required<ChatLimits>
  #steps = 0

  constructor(environment: unknown, limits: Required<ChatLimits>) {
    super(environment)
    this.#limits = limits
    this.#end = performance.now() + limits.milliseconds
  }

  override evaluate(statement: unknown, environment: unknown): { value: unknown } {
    const { milliseconds, size } = this.#limits
    if (++this.#steps > mostSteps || (this.#steps % 64 === 0 && performance.now() > this.#end))
      throw new Error(`it takes longer than ${milliseconds} ms or ${mostSteps} steps`)
    const result = super.evaluate(statement, environment)
    const { value } = result
    if ((typeof value === 'string' || Array.isArray(value)) && value.length > size)
      throw new Error(`it makes more than ${size} characters or entries`)
    return result
  }
}

const months = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October']
months.push('November', 'December')
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']

/** Python's strftime, as far as chat templates use it. */
function formatTime(now: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, '0')
  const fields: Readonly<Record<string, string>> = {
    Y: String(now.getFullYear()),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    H: two(now.getHours()),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    B: months[now.getMonth()],
    b: months[now.getMonth()].slice(0, 3),
    A: days[now.getDay()],
    a: days[now.getDay()].slice(0, 3),
    '%': '%',
  }
  return format.replace(/%([a-zA-Z%])/g, (whole, letter: string) => fields[letter] ?? whole)
}
