// Writes data for two capabilities that any machine can profile: English prose (Moby-Dick) and arithmetic with its steps. Run: npx node scripts/profile-data.ts <folder>
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
const lines = Array.from({ length: problems }, () => {
  const [a, c, d] = [10 + random.integer(90), 2 + random.integer(8), 2 + random.integer(8)]
  const b = 1 + random.integer(a)
  const [left, product] = [a - b, c * d]
  return JSON.stringify({
    prompt: `${a} - ${b} + ${c} * ${d}?`,
    completion: ` ${c} * ${d} = ${product}, ${a} - ${b} = ${left}, ${left} + ${product} = ${left + product}`,
  })
})
writeFileSync(join(folder, 'sums.jsonl'), `${lines.join('\n')}\n`)
