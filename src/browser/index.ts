// What a page imports: bundles from the web, from folders and from archives, run in a worker or where the page likes.
import './symbols.ts'

export type { BundleSource, PlacedFile } from '../bundle/source.ts'
export { type Answer, type Choice, type LoadOptions, NexusModel, type PromptOptions } from '../inference/nexus-model.ts'
export { Gpu } from '../runtime/gpu.ts'
export { type BrowserLoadOptions, BrowserModel, type BrowserPrompt } from './browser-model.ts'
export { BundleCache, type CachedBundle } from './cache.ts'
export { cureFor, NoWebGpuError, openGpuRoot } from './open-gpu.ts'
export { type OpenSourceOptions, openSource } from './open-source.ts'
export { serve } from './serve.ts'
export { type ModelFacts, ModelSession } from './session.ts'
