import type { Row, RowSource } from './batch.ts'
import type { Unit } from './evaluate.ts'
import type { ChoiceItem } from './score-choices.ts'

/** Something that a model can do: data to learn it from, and held-out items to score it by. */
export interface Capability extends RowSource {
  /** In words for a person. */
  readonly description: string
  /** Name of its score: `exact_match` or `next_token_accuracy`; with choices `acc` or `acc_norm`. */
  readonly metric: string
  readonly unit: Unit
  /** Score of a guess at random. */
  readonly chance: number
  /** Held-out items, the same every time, none of which a training row contains. */
  items(): Row[]
  /** The held-out questions where an answer is to be chosen, instead of written. */
  choices?(): ChoiceItem[]
  /** What a teacher of another vocabulary continues, and how its words become a row of `tokens` inputs. */
  readonly written?: {
    readonly prompts: readonly string[]
    encode(prompt: string, completion: string, tokens: number): Row
  }
  /** sha256 of what it is learned from, where that is a file. */
  readonly dataHash?: string
  /** A prompt to show, with what a right answer is where there is one. */
  readonly example: { readonly prompt: string; readonly answer?: string }
}
