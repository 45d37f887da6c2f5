// llama.cpp in a process of its own:  node bench/peers/llama/child.ts <vulkan|cpu> <file.gguf> <tokens> <rounds> <id,id,…>
// Reads the prompt and makes tokens greedily, `rounds` times after one to warm up, and prints Measured as one line of JSON.
import { availableParallelism } from 'node:os'

/** What the process prints. */
export interface Measured {
  readonly version: string
  /** The tokens of the answer. */
  readonly made: readonly number[]
  /** ms a token of the prompt, a round. */
  readonly prefill: readonly number[]
  /** ms a token of the answer after its first. */
  readonly decode: readonly number[]
}

/** What is called of node-llama-cpp, which need not be installed. */
interface NodeLlamaCpp {
  getLlama(options: object): Promise<{
    readonly llamaCppRelease: { readonly release: string }
    loadModel(options: object): Promise<{
      createContext(options: object): Promise<{
        getSequence(): {
          clearHistory(): Promise<void>
          evaluate(ids: readonly number[], options: object): AsyncIterable<number>
        }
      }>
    }>
  }>
}

const [device, modelPath, tokens, rounds, prompt] = process.argv.slice(2)
const onGpu = device === 'vulkan'
const name = 'node-llama-cpp'
const { getLlama } = (await import(name)) as NodeLlamaCpp
const llama = await getLlama({
  ...{ gpu: onGpu && 'vulkan', build: 'never', skipDownload: true, progressLogs: false, logLevel: 'error' },
})
const model = await llama.loadModel({ modelPath, gpuLayers: onGpu ? 'max' : 0 })
const context = await model.createContext({
  ...{ contextSize: 512, batchSize: 512, flashAttention: true, threads: availableParallelism() },
})
const sequence = context.getSequence()
const ids = prompt.split(',').map(Number)
const [made, prefill, decode]: [number[], number[], number[]] = [[], [], []]
for (let round = 0; round <= Number(rounds); round++) {
  await sequence.clearHistory()
  made.length = 0
  let last = performance.now()
  for await (const id of sequence.evaluate(ids, { temperature: 0 })) {
    const now = performance.now()
    const first = made.push(id) === 1
    if (round > 0) (first ? prefill : decode).push((now - last) / (first ? ids.length : 1))
    last = now
    if (made.length === Number(tokens)) break
  }
}
const version = `llama.cpp ${llama.llamaCppRelease.release}`
process.stdout.write(`${JSON.stringify({ version, made, prefill, decode } satisfies Measured)}\n`, () =>
  process.exit(0),
)
