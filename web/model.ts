// What the page asks of a bundle that is loaded, wherever it runs.

import type { Files } from '../src/bundle/files.ts'
import type { Manifest } from '../src/bundle/manifest.ts'
import type { BundleSource } from '../src/bundle/source.ts'
import type { VerifyReport } from '../src/bundle/verify.ts'
import type { Progress } from '../src/core/progress.ts'

/** How an answer is made. */
export interface Request {
  readonly prompt: string
  /** The adapter; the router chooses unless told. */
  readonly capability?: string
  readonly maxTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly seed: number
}

/** An answer and what gave it. */
export interface Reply {
  readonly text: string
  readonly capability: string
  readonly chosenBy: 'caller' | 'router'
  readonly tokens: number
  readonly tokensPerSecond: number
}

/** How an adapter learns a text in the page. */
export interface Lesson {
  readonly text: string
  readonly name: string
  readonly rank: number
  readonly steps: number
  readonly lr: number
  readonly seed: number
}

/** What one step of a lesson did. */
export interface LessonStep {
  readonly step: number
  readonly steps: number
  readonly loss: number
  readonly tokensPerSecond: number
}

/** What came of a lesson. */
export interface Learned {
  /** The adapter in PEFT's layout. */
  readonly zip: Uint8Array<ArrayBuffer>
  /** Characters of the text that the model does not know, which were replaced or left out. */
  readonly changed: number
}

/** A bundle that is loaded. One thing at a time is asked of it. */
export interface PlaygroundModel {
  readonly manifest: Manifest
  readonly report: VerifyReport
  /** What the GPU calls itself, and whether it is a processor that plays GPU. */
  readonly gpu: { readonly name: string; readonly software: boolean }
  /** Names of the adapters that can be used, the page's own ones last. */
  readonly capabilities: readonly string[]
  /** Most tokens of a prompt and its answer. */
  readonly contextLength: number
  /** Whether prompts can be routed. */
  readonly routed: boolean
  generate(request: Request, onPiece: (text: string) => void, signal: AbortSignal): Promise<Reply>
  /** Bytes of GPU memory in use. */
  memory(): Promise<number>
  /** Puts an adapter in PEFT's layout beside the bundle's. @param zip the archive. */
  addAdapter(name: string, zip: Uint8Array<ArrayBuffer>): Promise<void>
  removeAdapter(name: string): Promise<void>
  /** Trains an adapter and adds it. */
  train?(lesson: Lesson, onStep: (step: LessonStep) => void, signal: AbortSignal): Promise<Learned>
  /** Calls back when the GPU was lost; the model is loaded again by itself when it is needed next. */
  onLost(listener: (message: string) => void): void
  close(): void
}

/** Where a bundle lies that a worker can read too. */
export type PageSource = Exclude<BundleSource, Files>

/** How a bundle is opened. */
export interface OpenOptions {
  readonly enableRestricted: boolean
  /** PEM text of the key that must have signed it. */
  readonly key?: string
  readonly onProgress: (progress: Progress) => void
  readonly signal: AbortSignal
}

/** Loads a bundle. @throws BundleError and others, with a message for the person. */
export type OpenModel = (source: PageSource, options: OpenOptions) => Promise<PlaygroundModel>
