import type { FloatType } from '../core/dtype.ts'
import { type LinearName, linearShapes } from '../formats/model-config.ts'
import { attentionDecode, kvAppend } from '../kernels/attention-decode.ts'
import { cast } from '../kernels/copy.ts'
import { advanceTokens, chooseTokens, settingsWidth, type TokenState } from '../kernels/sampler.ts'
import { maskWords } from '../kernels/token-mask.ts'
import type { Attend, Decoder, LinearUpdates } from '../models/decoder.ts'
import type { Recording } from '../runtime/recording.ts'
import type { Scope } from '../runtime/scope.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { type AdapterStacks, stackAdapters } from './adapter-stacks.ts'
import type { KvPages } from './kv-pages.ts'

/** What is recorded of a batch; all else lies in tensors. */
export interface BatchKind {
  readonly rows: number
  readonly penalize: boolean
  /** Whether some tokens may be taken away. */
  readonly masked: boolean
  /** The update of each row, or none. */
  readonly updates: readonly (LinearUpdates | undefined)[]
}

/** Where the keys and values of a batch lie. */
export interface CacheOfBatch {
  readonly pages: KvPages
  readonly dtype: FloatType
  readonly contextLength: number
  /** Pages of a row at most. */
  readonly tablePages: number
}

/** One recorded step of a batch: it reads a token a row and makes the next. */
export interface RecordedBatch extends Disposable {
  readonly kind: Omit<BatchKind, 'updates'>
  /** The one update of all rows, where it is one. */
  readonly shared: LinearUpdates | undefined
  /** The updates that rows choose among, where they differ. */
  readonly stacks: AdapterStacks | undefined
  readonly state: TokenState
  readonly pageTable: Tensor<'u32'>
  /** u32 (B): the row's adapter in the stacks. */
  readonly adapterIds: Tensor<'u32'>
  /** u32 (B, ⌈V / 32⌉): tokens that may come next. */
  readonly mask: Tensor<'u32'> | undefined
  readonly chosen: Tensor<'u32'>
  readonly logprob: Tensor<'f32'>
  readonly recording: Recording
}

/** Whether a recording serves a batch of this kind. */
export function serves(batch: RecordedBatch, model: Decoder, kind: BatchKind): boolean {
  const { rows, penalize, masked } = batch.kind
  if (rows !== kind.rows || penalize !== kind.penalize || masked !== kind.masked) return false
  if (!needsStacks(model, kind)) return !batch.stacks && batch.shared === kind.updates[0]
  return kind.updates.every((updates) => !updates || batch.stacks?.adapters.includes(updates)) && !!batch.stacks
}

/** Rows that differ, and updates that are not of the model's storage type, take stacks. */
function needsStacks(model: Decoder, { updates }: BatchKind): boolean {
  const [first] = updates
  return updates.some((each) => each !== first) || (first !== undefined && dtypeOf(model, first) !== model.dtype)
}

function dtypeOf({ config, dtype }: Decoder, updates: LinearUpdates): FloatType {
  for (let layer = 0; layer < config.layers; layer++)
    for (const name of Object.keys(linearShapes(config)) as LinearName[]) {
      const pair = updates.pairFor(layer, name)
      if (pair) return pair.a.dtype
    }
  return dtype
}

/** Records a step for batches of this kind. */
export async function recordBatch(model: Decoder, cache: CacheOfBatch, kind: BatchKind): Promise<RecordedBatch> {
  const { gpu, config } = model
  const { rows, penalize, masked, updates } = kind
  const scope = gpu.scope('batch')
  try {
    const distinct = [...new Set(updates.filter((each) => each !== undefined))]
    const stacks = needsStacks(model, kind) ? await stackAdapters(scope, model, distinct) : undefined
    const shared = stacks ? undefined : updates[0]
    const state = stateOf(scope, rows, cache.contextLength)
    const pageTable = scope.filled('u32', [rows, cache.tablePages], 0, 'page table')
    const adapterIds = scope.filled('u32', [rows], 0, 'adapters')
    const mask = masked ? scope.filled('u32', [rows, maskWords(config.vocabularySize)], 0, 'mask') : undefined
    const kept: { chosen?: Tensor<'u32'>; logprob?: Tensor<'f32'> } = {}
    const recording = gpu.record((step) => {
      step.withoutGradients(() => {
        const hidden = model.hidden(step, state.ids, {
          updates: shared,
          batchUpdates: stacks && { ids: adapterIds, stackFor: stacks.stackFor },
          starts: state.position,
          attend: attendCached(step, cache, state.position, pageTable),
        })
        const logits = model.head(step, hidden)
        const flat = step.reshape(logits, [rows, logits.shape.at(-1)!])
        Object.assign(kept, chooseTokens(step, flat, state, { penalize, mask }))
        advanceTokens(step, state, kept.chosen!)
      })
    })
    return {
      ...{ kind: { rows, penalize, masked }, shared, stacks, state, pageTable, adapterIds, mask, recording },
      ...{ chosen: kept.chosen!, logprob: kept.logprob! },
      [Symbol.dispose]() {
        recording[Symbol.dispose]()
        scope[Symbol.dispose]()
      },
    }
  } catch (error) {
    scope[Symbol.dispose]()
    throw error
  }
}

function stateOf(scope: Scope, rows: number, contextLength: number): TokenState {
  return {
    ids: scope.filled('u32', [rows, 1], 0, 'ids'),
    position: scope.filled('u32', [rows], 0, 'position'),
    history: scope.filled('u32', [rows, contextLength], 0, 'history'),
    settings: scope.filled('f32', [rows, settingsWidth], 0, 'settings'),
    seeds: scope.filled('u32', [rows], 0, 'seeds'),
  }
}

/** Attention to the cache, after the new keys and values were added to it. */
export function attendCached(
  step: Step,
  { pages, dtype }: CacheOfBatch,
  position: Tensor<'u32'>,
  pageTable: Tensor<'u32'>,
): Attend {
  return (layer, q, k, v, options) => {
    const { k: keys, v: values } = pages.layers[layer]
    const cache = { k: keys, v: values, pageTable, position }
    kvAppend(step, cache, cast(step, k, dtype), cast(step, v, dtype))
    return cast(step, attentionDecode(step, cast(step, q, dtype), cache, options), q.dtype)
  }
}
