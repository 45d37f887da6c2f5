// What the oracles ask of llama.cpp, through node-llama-cpp on the processor.
//   cd tests/oracles/llama-cpp && npm ci --ignore-scripts
import { getLlama } from 'node-llama-cpp'

/** The probability of every token, by id. */
type Probabilities = ReadonlyMap<number, number>

interface Sequence {
  controlledEvaluate(
    input: readonly [id: number, options: object][],
    options: { onTokenResult(index: number, result: { next: { probabilities?: Probabilities } }): void },
  ): Promise<unknown>
}

/** A model in llama.cpp. */
export interface LlamaCpp {
  /** The release of llama.cpp. */
  readonly release: string
  /** The ids of a text, special tokens not among them. */
  tokenize(text: string): number[]
  /**
   * Natural logarithms of probabilities after each of `ids`, in a fresh context.
   * @param read is called for each token in turn with log p of any token after it.
   */
  evaluate(ids: readonly number[], read: (at: number, logProbability: (id: number) => number) => void): Promise<void>
}

/** Opens a GGUF file, with GGUF adapters on it. */
export async function openLlamaCpp(modelPath: string, adapters: readonly string[] = []): Promise<LlamaCpp> {
  const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: 'error' })
  const model = await llama.loadModel({ modelPath })
  return {
    release: llama.llamaCppRelease.release,
    tokenize: (text) => model.tokenize(text, false),
    async evaluate(ids, read) {
      const lora = adapters.length > 0 ? { adapters: adapters.map((filePath) => ({ filePath })) } : undefined
      const context = await model.createContext({ contextSize: ids.length + 8, batchSize: 128, lora })
      const sequence = context.getSequence() as Sequence
      // A batch at a time: results of a batch are kept until it ends, a whole vocabulary a token.
      for (let begin = 0; begin < ids.length; begin += 64) {
        const part = ids.slice(begin, begin + 64)
        await sequence.controlledEvaluate(
          part.map((id) => [id, { generateNext: { probabilities: true } }]),
          {
            onTokenResult(index, { next }) {
              // They are a softmax in f32, whose sum is off by up to 1e-4.
              let sum = 0
              for (const probability of next.probabilities!.values()) sum += probability
              read(begin + index, (id) => Math.log((next.probabilities!.get(id) ?? 0) / sum))
            },
          },
        )
      }
      await context.dispose()
    },
  }
}
