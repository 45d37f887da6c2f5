import type { PlacedFile } from '../bundle/source.ts'
import * as errors from '../core/errors.ts'
import type { Progress } from '../core/progress.ts'
import type { Answer, Choice, PromptOptions } from '../inference/nexus-model.ts'
import type { MemoryUse } from '../runtime/pool.ts'
import { NoWebGpuError } from './open-gpu.ts'
import type { ModelFacts, SessionOptions } from './session.ts'

/** A source as it is sent to the worker. */
export type SentSource = string | Blob | FileSystemDirectoryHandle | readonly PlacedFile[]

/** What the page asks of the worker. */
export type Request =
  | {
      readonly kind: 'load'
      readonly source: SentSource
      readonly publicKey?: string
      readonly options: Pick<SessionOptions, 'enableRestricted' | 'cache'>
    }
  | { readonly kind: 'stream'; readonly prompt: Omit<PromptOptions, 'signal' | 'onChoice' | 'updates'> }
  | {
      readonly kind: 'setAdapter'
      readonly name: string
      readonly bytes: Uint8Array<ArrayBuffer>
      readonly config: unknown
    }
  | { readonly kind: 'removeAdapter'; readonly name: string }
  | { readonly kind: 'memory' }
  | { readonly kind: 'extra'; readonly name: string; readonly argument: unknown }
  | { readonly kind: 'loseDevice' }

/** A message to the worker; `cancel` names the request that is to stop. */
export type ToWorker = { readonly id: number; readonly request: Request } | { readonly cancel: number }

/** What the worker says about a request, before its answer or instead of it. */
export type FromWorker =
  | { readonly id: number; readonly progress: Progress }
  | { readonly id: number; readonly choice: Choice }
  | { readonly id: number; readonly piece: string }
  | { readonly id: number; readonly note: unknown }
  | { readonly id: number; readonly error: SentError }
  | { readonly id: number; readonly result: Result }
  | { readonly lost: string }

/** What a request comes to: facts after loading and after a change of adapters. */
export interface Result {
  readonly facts?: ModelFacts
  readonly answer?: Answer
  readonly memory?: MemoryUse
  /** Of an extra. */
  readonly value?: unknown
}

/** An error on its way between threads: structured cloning would forget its class. */
export interface SentError {
  readonly name: string
  readonly message: string
  readonly cure?: string
}

/** @returns what is sent of an error. */
export function toSent(error: unknown): SentError {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) }
  const { name, message } = error
  return error instanceof NoWebGpuError ? { name, message, cure: error.cure } : { name, message }
}

const classes: Readonly<Record<string, new (message: string) => Error>> = {
  BundleError: errors.BundleError,
  DeviceLostError: errors.DeviceLostError,
  GpuError: errors.GpuError,
  NetworkError: errors.NetworkError,
  RangeError,
  ResourceError: errors.ResourceError,
  SyntaxError,
  TypeError,
}

/** The error that was sent, in its class. */
export function fromSent({ name, message, cure }: SentError): Error {
  if (cure !== undefined) return new NoWebGpuError(message.replace(` ${cure}`, ''), cure)
  if (name === 'AbortError') return new DOMException(message, name)
  return classes[name] ? new classes[name](message) : Object.assign(new Error(message), { name })
}
