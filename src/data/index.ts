// Records, chat rows, packing, order: training data, without a GPU.
export { type EncodedRow, encodeExample } from './encode.ts'
export { type Example, toExample } from './example.ts'
export { type BatchPlan, DataOrder } from './order.ts'
export { type PackedBatch, packBatch } from './packed-batch.ts'
export { readRecords } from './records.ts'
