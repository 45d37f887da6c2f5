import { basename } from 'node:path'
import { z } from 'zod'
import { readRecords } from '../data/records.ts'
import { FileSource } from '../host/files.ts'
import type { Row } from './batch.ts'
import type { ModelEncoding } from './data-capability.ts'
import type { ChoiceItem } from './score-choices.ts'

const schema = z.object({
  prompt: z.string({ error: 'must be a text' }),
  choices: z.array(z.string().min(1, { error: 'must not be empty' })).min(2, { error: 'must be two or more' }),
  answer: z.number({ error: 'must be the place of the right choice, from 0' }).int().nonnegative(),
})

/** Between a question and its answer, as lm-evaluation-harness has it. */
const delimiter = ' '

/**
 * Reads questions with answers to choose from: records `{prompt, choices, answer}`, the answer counted from 0.
 * @param length most tokens of a question with an answer.
 * @throws SyntaxError with the line that is at fault.
 */
export async function readChoices(path: string, encoding: ModelEncoding, length: number): Promise<ChoiceItem[]> {
  await using source = await FileSource.open(path)
  const items: ChoiceItem[] = []
  for await (const { place, value } of readRecords(basename(path), source)) {
    const result = schema.safeParse(value)
    if (!result.success) {
      const [issue] = result.error.issues
      throw new SyntaxError(`${place}: "${issue.path.join('.')}" ${issue.message}`)
    }
    const { prompt, choices, answer } = result.data
    if (answer >= choices.length)
      throw new SyntaxError(
        `${place}: "answer" is ${answer}, the last of ${choices.length} choices is ${choices.length - 1}`,
      )
    const rows = choices.map((choice) => answerRow(prompt.trimEnd(), choice, encoding))
    if (rows.some(({ weights }) => weights.length > length))
      throw new SyntaxError(`${place}: it has more than ${length} tokens with an answer; give a larger tokens`)
    items.push({ rows, characters: choices.map((choice) => choice.length), answer })
  }
  if (items.length === 0) throw new SyntaxError(`${basename(path)}: it holds no questions`)
  return items
}

/** The answer's tokens are those that the whole text has behind as many as the question alone has. */
function answerRow(prompt: string, choice: string, { tokenizer, bosId, eosId }: ModelEncoding): Row {
  // A text without a question is scored behind the token that begins or ends texts.
  const first = bosId ?? (prompt === '' ? eosId : undefined)
  const begin = first === undefined ? [] : [first]
  const asked = begin.length + (prompt === '' ? 0 : tokenizer.encode(prompt).length)
  const ids = [...begin, ...tokenizer.encode(prompt === '' ? choice : `${prompt}${delimiter}${choice}`)]
  return { ids, weights: Float32Array.from({ length: ids.length - 1 }, (_, i) => (i + 1 >= asked ? 1 : 0)) }
}
