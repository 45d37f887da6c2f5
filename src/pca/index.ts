// Streaming PCA, sketches, mergeable states, rank estimates.
export { allocateByVariance, allocateRanks } from './allocate.ts'
export { IncrementalPca } from './incremental-pca.ts'
export { massiveChannels, outlierTokens } from './massive.ts'
export { decompose, mergePcaStates, type Pca, type PcaState } from './pca-state.ts'
export { estimateRank, estimateStateRank } from './rank.ts'
export type { PcaSketch } from './sketch.ts'
export { loadPcaState, savePcaState } from './state-file.ts'
export { StreamingPca } from './streaming-pca.ts'
