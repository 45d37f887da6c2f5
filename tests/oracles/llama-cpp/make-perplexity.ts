// Golden perplexities of the test models by llama.cpp: the first 4,096 tokens of Moby Dick in windows of 1,024.
//   node scripts/fetch-test-models.ts; cd tests/oracles/llama-cpp && npm ci --ignore-scripts && node make-perplexity.ts
// Writes golden/perplexity.json: for each model sums of −log p (nats) over every 128 tokens, window after window; the
// beginning token that goes before each window, where the model has one; and the hash of the ids. What a window's first
// token costs is counted only where something goes before it. make-perplexity.py adds what transformers says in f32.
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cachePath } from '../../../src/host/cache.ts'
import { mobyDickText } from '../../models/moby-dick.ts'
import { openLlamaCpp } from './llama-cpp.ts'

const [count, context, group] = [4096, 1024, 128]
const models = { 'SmolLM2-135M-Instruct.Q4_1.gguf': [], 'gemma-3-270m-q4_k_m.gguf': [2] }
const folder = process.env.NEXUS_MODELS ?? cachePath('models')
const golden: Record<string, object> = {}

for (const [name, prefix] of Object.entries(models)) {
  const llama = await openLlamaCpp(join(folder, name))
  const ids = llama.tokenize(mobyDickText()).slice(0, count)
  const losses: number[] = []
  for (let begin = 0; begin < count; begin += context) {
    const window = [...prefix, ...ids.slice(begin, begin + context)]
    const found = new Float64Array(window.length)
    await llama.evaluate(window.slice(0, -1), (at, logProbability) => {
      found[at + 1] = -logProbability(window[at + 1])
    })
    const own = found.subarray(prefix.length)
    for (let at = 0; at < own.length; at += group)
      losses.push(
        Number(
          own
            .subarray(at, at + group)
            .reduce((sum, loss) => sum + loss, 0)
            .toFixed(4),
        ),
      )
    console.log(
      name,
      begin,
      losses.reduce((sum, loss) => sum + loss, 0),
    )
  }
  const sha256 = createHash('sha256').update(Uint32Array.from(ids)).digest('hex')
  golden[name] = { tokens: count, context, group, prefix, sha256, llamaCpp: { release: llama.release, losses } }
}
writeFileSync(join(import.meta.dirname, '../golden/perplexity.json'), `${JSON.stringify(golden)}\n`)
