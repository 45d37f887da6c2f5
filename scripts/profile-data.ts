// Writes data for two capabilities that any machine can profile: English prose (Moby-Dick) and arithmetic in words with its
// steps. Run: node scripts/profile-data.ts <folder>
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Random } from '../src/core/random.ts'
import { mobyDickText } from '../src/demo/capabilities.ts'

const folder = process.argv[2] ?? 'data'
const problems = 600
const characters = 200_000

mkdirSync(folder, { recursive: true })
writeFileSync(join(folder, 'prose.txt'), mobyDickText().slice(0, characters))

const random = new Random(42)
const names = ['Ada', 'Ben', 'Chiara', 'Deniz', 'Emil', 'Farah', 'Goran', 'Hana']
const things = ['apples', 'books', 'coins', 'stamps', 'marbles', 'shells', 'pencils', 'cards']
const lines = Array.from({ length: problems }, () => {
  const [name, other] = random.shuffle([...names])
  const thing = random.pick(things)
  const [have, boxes, each] = [10 + random.integer(90), 2 + random.integer(9), 2 + random.integer(11)]
  const given = 1 + random.integer(have)
  const [left, bought] = [have - given, boxes * each]
  return JSON.stringify({
    prompt:
      `Question: ${name} has ${have} ${thing}. ${name} gives ${given} of them to ${other} and then buys ${boxes} boxes ` +
      `with ${each} ${thing} in each. How many ${thing} does ${name} have now?\nAnswer:`,
    completion:
      ` ${name} has ${have} - ${given} = ${left} ${thing} left. The boxes hold ${boxes} * ${each} = ${bought} ${thing}. ` +
      `Together that is ${left} + ${bought} = ${left + bought}. The answer is ${left + bought}.`,
  })
})
writeFileSync(join(folder, 'sums.jsonl'), `${lines.join('\n')}\n`)
